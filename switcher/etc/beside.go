package etc

import (
	"path"
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

const maxName = 255 // bytes, NAME_MAX

// takeBesides takes the files out of the host's tree that a former merge put beside others, and returns the paths that
// they are beside: no side has them, each merge puts them there anew.
func takeBesides(cur listing.Tree) []string {
	var names []string
	for name := range cur {
		if of := reserved.Original(name); of != "" {
			names = append(names, of)
			delete(cur, name)
		}
	}
	return names
}

// placeBesides puts the image's version beside the files in conflict, and beside those of an earlier conflict that
// nobody has settled: who settles one by hand removes the file.
func (out *outcome) placeBesides(unsettled []string, next listing.Tree) {
	for i, conflict := range out.report.Conflicts {
		if out.placeBeside(conflict.Path, next) {
			out.report.Conflicts[i].Beside = reserved.Beside(conflict.Path)
		}
	}
	for _, name := range unsettled {
		known := slices.ContainsFunc(out.report.Conflicts, func(c Conflict) bool { return c.Path == name })
		if !known && out.placeBeside(name, next) {
			out.report.Conflicts = append(out.report.Conflicts, Conflict{
				Path: name, Reason: "an earlier conflict that is not settled", Beside: reserved.Beside(name),
			})
		}
	}
}

// placeBeside puts the image's version beside a file that has other content, and reports whether it did. It cannot be
// run, and is not open to more than the image's.
func (out *outcome) placeBeside(name string, next listing.Tree) bool {
	x, p := next[name], out.paths[name]
	beside := reserved.Beside(name)
	special := slices.Contains(table.Files, name) || reserved.Has(name)
	if special || name == "fstab" || x.Kind != listing.File || p.side == nowhere ||
		p.entry.Kind == listing.Dir || p.entry.Content() == x.Content() || len(path.Base(beside)) > maxName {
		return false
	}
	e := listing.Entry{Kind: listing.File, Mode: x.Mode & 0o666, UID: x.UID, GID: x.GID, Sum: x.Sum, MTime: x.MTime}
	if label, ok := x.Xattrs[listing.Label]; ok {
		e.Xattrs = map[string]string{listing.Label: label}
	}
	out.paths[beside] = resultPath{side: image, entry: e, source: name}
	return true
}
