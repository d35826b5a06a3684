package etc

import "github.com/updatectl/updatectl/switcher/etc/listing"

// isAt reports whether a directory already is what was decided: a merge made it when services still ran, and it is on
// disk. Reading it takes a fraction of the time that building it again would.
func (out *outcome) isAt(dst string) bool {
	made, err := listing.Read(dst)
	if err != nil || len(made.LeftOut)+len(made.Mounts) > 0 || len(made.Tree) != len(out.paths) {
		return false
	}
	for name, p := range out.paths {
		want, text := p.entry, p.content != nil
		if text {
			want.Sum = listing.Sum(p.content)
		}
		is, there := made.Tree[name]
		if !there || !listing.Same(want, is, true, true) || want.Xattrs[listing.Label] != is.Xattrs[listing.Label] ||
			!text && want.Kind == listing.File && !want.MTime.Equal(is.MTime) {
			return false
		}
	}
	return true
}
