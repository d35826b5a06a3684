package etc

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
)

// Report is what a merge did, or would do. Paths are relative to /etc; one that ends in "/" stands for a directory with
// everything below it. The same inputs give the same order.
type Report struct {
	Kept       []string   `json:"kept"`        // local versions that replace the image's
	Added      []string   `json:"added"`       // only local, carried over
	Removed    []string   `json:"removed"`     // deleted locally; stays deleted
	Taken      []string   `json:"taken"`       // what the image changes for this host; empty when adopting
	Merged     []string   `json:"merged"`      // with changes of both sides
	Conflicts  []Conflict `json:"conflicts"`   // decided, but an operator should look at them
	Notes      []string   `json:"notes"`       // what else is worth knowing
	Renumbered []string   `json:"renumbered"`  // users and groups that have another number here than in the image
	NotAdopted NotAdopted `json:"not_adopted"` // what a host root leaves behind

	// Owners are those of the image's files that have another number on this host.
	Owners []numbers.Shown `json:"owners"`
	// Correction is the whole of that decision.
	Correction numbers.Correction `json:"-"`
}

// Conflict is a path that the host and the image changed differently. Beside is the path of the image's version, which
// nothing loads; "" when there is none.
type Conflict struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
	Beside string `json:"beside,omitempty"`
}

// NotAdopted lists the paths in the /etc of a host root that differ from the image and are not on the adopt list: all
// of them in Paths, and the first in Samples, where many paths in one directory are shown as the directory. Users and
// Groups are all that have no entry in the new /etc.
type NotAdopted struct {
	Count   int                `json:"count"`
	Samples []string           `json:"samples"`
	Paths   []string           `json:"paths"`
	Users   []accounts.Account `json:"users"`
	Groups  []accounts.Account `json:"groups"`
}

// maxSamples is how many samples a report has: the plan for an old host stays short.
const maxSamples = 10

func (r *Report) conflict(path, reason string) {
	r.Conflicts = append(r.Conflicts, Conflict{Path: path, Reason: reason})
}

// add adds what was decided about the user databases.
func (r *Report) add(remarks accounts.Remarks) {
	for _, c := range remarks.Conflicts {
		r.conflict(c.File, c.Reason)
	}
	r.Notes = append(r.Notes, remarks.Notes...)
	r.Renumbered = append(r.Renumbered, remarks.Renumbered...)
	r.NotAdopted.Users, r.NotAdopted.Groups = remarks.LeftUsers, remarks.LeftGroups
}

func (r *Report) note(text string) { r.Notes = append(r.Notes, text) }

// finish sorts the report. Empty lists are [] in JSON, not null.
func (r *Report) finish() {
	for _, list := range []*[]string{&r.Kept, &r.Added, &r.Removed, &r.Taken, &r.Merged, &r.Notes,
		&r.Renumbered, &r.NotAdopted.Samples} {
		slices.Sort(*list)
		*list = append([]string{}, slices.Compact(*list)...)
	}
	slices.SortFunc(r.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
	})
	r.Conflicts = append([]Conflict{}, slices.Compact(r.Conflicts)...)
	for _, list := range []*[]accounts.Account{&r.NotAdopted.Users, &r.NotAdopted.Groups} {
		slices.SortFunc(*list, func(a, b accounts.Account) int { return cmp.Compare(a.Name, b.Name) })
		*list = append([]accounts.Account{}, *list...)
	}
	r.Owners = append([]numbers.Shown{}, r.Owners...)
	if len(r.NotAdopted.Paths) == 0 {
		r.NotAdopted.Paths = r.NotAdopted.Samples
	}
	r.NotAdopted.Count = len(r.NotAdopted.Paths)
	r.NotAdopted.Samples = samples(r.NotAdopted.Paths)
}

// Gets reports whether the new /etc has the host's version of a path, and the image has another one or none.
func (r Report) Gets(name string) bool {
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		if _, found := slices.BinarySearch(r.Added, above+"/"); found {
			return true
		}
	}
	_, added := slices.BinarySearch(r.Added, name)
	_, kept := slices.BinarySearch(r.Kept, name)
	return added || kept || slices.Contains(r.Added, name+"/")
}

// Filled returns the report with no list nil, as one that nothing was decided for has them.
func (r Report) Filled() Report {
	r.finish()
	return r
}

// manyInDir is how many paths in one directory are shown as the directory: otherwise the links in alternatives/ would
// fill all samples.
const manyInDir = 4

// samples returns the first of a sorted list of paths, where many in one directory become the directory.
func samples(names []string) []string {
	in := map[string]int{}
	for _, name := range names {
		in[path.Dir(strings.TrimSuffix(name, "/"))]++
	}
	short := []string{}
	for _, name := range names {
		if dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "." && in[dir] >= manyInDir {
			name = dir + "/"
		}
		short = append(short, name)
	}
	slices.Sort(short)
	short = slices.Compact(short)
	return short[:min(maxSamples, len(short))]
}
