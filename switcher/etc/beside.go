package etc

import (
	"path"
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// takeBesides takes the files out of the host's tree that a former merge put beside others, and returns the paths that
// they are beside: no side has them, each merge puts them there anew.
func takeBesides(cur listing) []string {
	var names []string
	for name := range cur {
		if of := besideWhat(name); of != "" {
			names = append(names, of)
			delete(cur, name)
		}
	}
	return names
}

// placeBesides puts the image's version beside the files in conflict, and beside those of an earlier conflict that
// nobody has settled: who settles one by hand removes the file.
func (out *outcome) placeBesides(unsettled []string, next listing) {
	for i, conflict := range out.report.Conflicts {
		if out.placeBeside(conflict.Path, next) {
			out.report.Conflicts[i].Beside = besideOf(conflict.Path)
		}
	}
	for _, name := range unsettled {
		known := slices.ContainsFunc(out.report.Conflicts, func(c Conflict) bool { return c.Path == name })
		if !known && out.placeBeside(name, next) {
			out.report.Conflicts = append(out.report.Conflicts, Conflict{
				Path: name, Reason: "an earlier conflict that is not settled", Beside: besideOf(name),
			})
		}
	}
}

// placeBeside puts the image's version beside a file that has other content, and reports whether it did. It cannot be
// run, and is not open to more than the image's.
func (out *outcome) placeBeside(name string, next listing) bool {
	x, p := next[name], out.paths[name]
	beside := besideOf(name)
	special := slices.Contains(accounts.Files, name) || backups.has(name) || identity.has(name) || ofImage.has(name)
	if special || name == "fstab" || x.kind != kindFile || p.side == nowhere ||
		p.entry.kind == kindDir || p.entry.contentOf() == x.contentOf() || len(path.Base(beside)) > maxName {
		return false
	}
	e := entry{kind: kindFile, mode: x.mode & 0o666, uid: x.uid, gid: x.gid, sum: x.sum, mtime: x.mtime}
	if label, ok := x.xattrs[labelXattr]; ok {
		e.xattrs = map[string]string{labelXattr: label}
	}
	out.paths[beside] = resultPath{side: image, entry: e, source: name}
	return true
}
