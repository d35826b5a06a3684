package etc

import (
	"maps"
	"path"
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/fields"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

// decide returns where each path comes from, and adds the conflicts to the report. joins has what becomes of the paths
// that both sides changed.
func decide(old, cur, next listing.Tree, joins map[string]fields.Joined, adopting bool, rep *Report) map[string]side {
	sides := map[string]side{}
	reasons := map[string]string{}
	names := slices.Sorted(maps.Keys(listing.EveryPath(old, cur, next)))
	for _, name := range names {
		sides[name], reasons[name] = decidePath(name, old, cur, next, adopting)
		if j, ok := joins[name]; ok && reasons[name] == fields.ChangedByBoth {
			reasons[name] = j.Conflict
		}
	}
	// A local change needs its parent directories, whatever the image did to them.
	for _, name := range slices.Backward(names) {
		parent := path.Dir(name)
		if sides[name] != current || name == "." || isDir(sides[parent], cur[parent], next[parent]) {
			continue
		}
		if sides[parent] == image {
			reasons[parent] = "the image has no directory here any more; kept, something in it was changed here"
		}
		sides[parent] = current
	}
	// A file of the image needs a parent directory, which the host may have removed.
	for _, name := range names {
		parent := path.Dir(name)
		if sides[name] == image && name != "." && !isDir(sides[parent], cur[parent], next[parent]) {
			sides[name] = nowhere
			if o, x := old[name], next[name]; !listing.Same(o, x, old.Has(name), true) {
				reasons[name] = "the image changes it, below a directory that was removed or replaced here; left out"
			}
		}
	}
	for name, reason := range reasons {
		if reason != "" && !adopting && !reserved.Backups.Has(name) {
			rep.conflict(name, reason)
		}
	}
	return sides
}

// isDir reports whether the side that a path comes from has a directory there.
func isDir(s side, cur, next listing.Entry) bool {
	return s == current && cur.Kind == listing.Dir || s == image && next.Kind == listing.Dir
}

// decidePath returns where a path comes from, regardless of others, and the reason if it is a conflict.
func decidePath(name string, old, cur, next listing.Tree, adopting bool) (side, string) {
	o, inO := old[name]
	c, inC := cur[name]
	x, inX := next[name]
	local, fromImage := nowhere, nowhere
	if inC {
		local = current
	}
	if inX {
		fromImage = image
	}
	switch {
	case reserved.OfImage.Has(name):
		return fromImage, ""
	case !adopting && inC && reserved.Identity.Has(name):
		return local, ""
	case listing.Same(c, o, inC, inO):
		return fromImage, ""
	case listing.Same(x, o, inX, inO), listing.Same(c, x, inC, inX):
		return local, ""
	case !inO:
		return local, "added here and by the image, differently; the local one is kept"
	case !inC:
		return local, "deleted here and changed by the image; stays deleted"
	case !inX:
		return local, "changed here and dropped by the image; kept"
	default:
		return local, fields.ChangedByBoth
	}
}
