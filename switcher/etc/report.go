package etc

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Report says what a merge did, or would do. Paths are relative to /etc; a
// path that ends in "/" stands for a directory and everything below it. The
// order is always the same for the same inputs.
type Report struct {
	Kept       []string   `json:"kept"`        // local versions that stand in place of the image's
	Added      []string   `json:"added"`       // only local, carried over
	Removed    []string   `json:"removed"`     // deleted locally and staying deleted
	Taken      []string   `json:"taken"`       // what the image changes for this host; empty when adopting
	Conflicts  []Conflict `json:"conflicts"`   // decided, but worth an operator's look
	Notes      []string   `json:"notes"`       // facts about the merge that need no decision
	NotAdopted NotAdopted `json:"not_adopted"` // what the mutable host leaves behind
}

// Conflict is a place where the host and the image wanted different things.
type Conflict struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// NotAdopted counts what in the /etc of the mutable host differs from the
// image and is not on the adopt list, with the first names as a sample; many
// names in one directory are shown as the directory.
type NotAdopted struct {
	Count   int      `json:"count"`
	Samples []string `json:"samples"`
}

// maxSamples keeps the plan of a long-lived host to a few lines.
const maxSamples = 10

func (r *Report) conflict(path, reason string) {
	r.Conflicts = append(r.Conflicts, Conflict{path, reason})
}

func (r *Report) note(text string) { r.Notes = append(r.Notes, text) }

// finish puts the report in its one order; empty lists are [] in JSON, not null.
func (r *Report) finish() {
	for _, list := range []*[]string{&r.Kept, &r.Added, &r.Removed, &r.Taken, &r.Notes, &r.NotAdopted.Samples} {
		slices.Sort(*list)
		*list = append([]string{}, slices.Compact(*list)...)
	}
	slices.SortFunc(r.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
	})
	r.Conflicts = append([]Conflict{}, slices.Compact(r.Conflicts)...)
	r.NotAdopted.Count = len(r.NotAdopted.Samples)
	r.NotAdopted.Samples = samples(r.NotAdopted.Samples)
}

// crowd is how many names of one directory make it a crowd: alternatives/
// alone would fill every sample with its links.
const crowd = 4

// samples shortens a sorted list to its first names, a crowd to its directory.
func samples(names []string) []string {
	in := map[string]int{}
	for _, name := range names {
		in[path.Dir(strings.TrimSuffix(name, "/"))]++
	}
	short := []string{}
	for _, name := range names {
		if dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "." && in[dir] >= crowd {
			name = dir + "/"
		}
		short = append(short, name)
	}
	slices.Sort(short)
	short = slices.Compact(short)
	return short[:min(maxSamples, len(short))]
}
