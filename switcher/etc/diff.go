package etc

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/merge3"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Difference is a path in /etc that is not as in the image.
type Difference struct {
	Path   string `json:"path"` // below /etc
	Change Change `json:"change"`
	// Fields says what differs in a path that both have: content, kind, mode, owner, group, attributes.
	Fields []string `json:"fields"`
	// Beside is the path of the image's version, if the change is a conflict.
	Beside string `json:"beside,omitempty"`
	// Diff is the difference of two texts in the unified format. It is "" for what not everybody may read, except for a
	// path that was asked for.
	Diff string `json:"diff,omitempty"`
}

// Change is how a path differs.
type Change string

// The changes of a path.
const (
	Changed     Change = "changed"  // by this host
	Added       Change = "added"    // by this host
	Removed     Change = "removed"  // by this host
	Merged      Change = "merged"   // has changes of this host and of an image
	Conflicting Change = "conflict" // has the host's version; the image's is beside it
	Remade      Change = "derived"  // made by a program from other files
)

// Diff returns how the /etc at current differs from that of its image, at the paths or below, everywhere if there are
// none. The owners in the image are compared by name.
func Diff(pristine, current string, rules derived.List, paths []string) ([]Difference, error) {
	x, err := readDirectory(pristine)
	if err != nil {
		return nil, err
	}
	c, err := readDirectory(current)
	if err != nil {
		return nil, err
	}
	merged, err := readText(current, mergedList, rootfs.MaxConfig)
	if err != nil {
		return nil, err
	}
	isMerged := strings.Split(string(merged), "\n")
	ids, err := Numbers(pristine, current)
	if err != nil {
		return nil, err
	}
	x.tree = x.tree.mapOwners(ids.Map)
	hideMounted(c.mounts, x.tree, c.tree)
	if err := errors.Join(compareFiltered(pristine, x.tree), compareFiltered(current, c.tree)); err != nil {
		return nil, err
	}
	list := []Difference{}
	for _, name := range slices.Sorted(maps.Keys(everyPath(c.tree, x.tree))) {
		d, differs := difference(name, c.tree, x.tree, rules)
		if !differs || notes.has(name) || besideWhat(name) != "" || !asked(name, paths) {
			continue
		}
		if d.Change == Changed && slices.Contains(isMerged, name) {
			d.Change = Merged
		}
		if d.Change != Remade {
			d.Diff = diffTexts(name, pristine, current, c.tree, x.tree, slices.Contains(paths, name))
		}
		list = append(list, d)
	}
	return list, nil
}

// compareFiltered makes the fstab of a tree compare without the lines that a merge comments out.
func compareFiltered(dir string, tree listing) error {
	e, ok := tree["fstab"]
	if !ok || e.kind != kindFile {
		return nil
	}
	text, err := readText(dir, "fstab", maxFstab)
	e.sum = sumOf(FilterFstab(text))
	tree["fstab"] = e
	return err
}

// asked reports whether a path is one of those asked for, or below one.
func asked(name string, paths []string) bool {
	return len(paths) == 0 || slices.ContainsFunc(paths, func(p string) bool { return isUnder(name, p) })
}

// difference returns how a path differs, and whether it does. Of a directory that only one side has, what is in it is
// listed.
func difference(name string, cur, next listing, rules derived.List) (Difference, bool) {
	c, inC := cur[name]
	x, inX := next[name]
	d := Difference{Path: name, Change: Changed, Fields: []string{}}
	switch {
	case name == "." || same(c, x, inC, inX) && !has(cur, besideOf(name)):
		return d, false
	case !inX:
		d.Change = Added
	case !inC:
		d.Change = Removed
	default:
		d.Fields = append(d.Fields, fieldsOf(c, x)...)
	}
	if e := c; !inC && x.kind == kindDir || !inX && e.kind == kindDir {
		for other := range everyPath(cur, next) {
			if path.Dir(other) == name {
				return d, false
			}
		}
	}
	isLink := inC && c.kind == kindLink || !inC && x.kind == kindLink
	target := c.target
	if !inC {
		target = x.target
	}
	switch {
	case ofImage.has(name) || rules.Makes(name, target, isLink):
		d.Change = Remade
	case has(cur, besideOf(name)):
		d.Change, d.Beside = Conflicting, besideOf(name)
	}
	return d, true
}

// fieldsOf returns what differs between two versions of a path.
func fieldsOf(c, x entry) []string {
	var fields []string
	add := func(name string, differs bool) {
		if differs {
			fields = append(fields, name)
		}
	}
	unmarked := func(e entry) entry { return entry{kind: e.kind, xattrs: e.xattrs, flags: e.flags} }
	add("kind", c.kind != x.kind)
	add("content", c.kind == x.kind && c.contentOf() != x.contentOf())
	add("mode", c.kind == x.kind && c.kind != kindLink && c.mode != x.mode)
	add("owner", c.uid != x.uid)
	add("group", c.gid != x.gid)
	add("attributes", c.kind == x.kind && !same(unmarked(c), unmarked(x), true, true))
	return fields
}

// diffTexts returns the difference of a text, "" if there is none to show.
func diffTexts(name, pristine, current string, cur, next listing, explicit bool) string {
	var texts [2][]byte
	for i, side := range []struct {
		from string
		tree listing
	}{{pristine, next}, {current, cur}} {
		e, ok := side.tree[name]
		if !ok {
			continue
		}
		if e.kind != kindFile || !explicit && !worldReadable(name, side.tree) {
			return ""
		}
		text, err := readStart(side.from, name, merge3.MaxText+1)
		if err != nil || !merge3.IsText(text) {
			return ""
		}
		texts[i] = text
	}
	return merge3.Unified("image/"+name, texts[0], "etc/"+name, texts[1])
}

// worldReadable reports whether everybody may read a file: nobody learns more from a difference than from the file.
func worldReadable(name string, tree listing) bool {
	if tree[name].mode&unix.S_IROTH == 0 {
		return false
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if tree[dir].mode&unix.S_IXOTH == 0 {
			return false
		}
	}
	return true
}

// ErrNotTaken is returned for a path that [Take] does not replace.
var ErrNotTaken = errors.New("it is not taken from the image")

// relative returns a path below /etc, given with or without /etc, as the merge has it.
func relative(name string) (string, error) {
	rel := path.Clean(strings.TrimPrefix(path.Clean(name), "/etc/"))
	if rel == "." || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("cannot use %q: %w: it is no path below /etc", name, ErrNotTaken)
	}
	return rel, nil
}

// Relative returns paths below /etc, each given with or without /etc. The error is an ErrNotTaken.
func Relative(names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		rel, err := relative(name)
		if err != nil {
			return nil, err
		}
		all = append(all, rel)
	}
	return all, nil
}
