// Package difference says how an /etc differs from that of its image, and takes files from the image. It promises that
// what is replaced is kept beside it, and that no difference shows what not everybody may read, unless it is asked for.
package difference

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
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/merge3"
	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/etc/users"
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
	Merged      Change = "merged"   // Has changes of this host and of an image
	Conflicting Change = "conflict" // Has the host's version; the image's is beside it
	Remade      Change = "derived"  // made by a program from other files
)

// Diff returns how the /etc at current differs from that of its image, at the paths or below, everywhere if there are
// none. The owners in the image are compared by name.
func Diff(pristine, current string, rules derived.List, paths []string) ([]Difference, error) {
	x, err := listing.Read(pristine)
	if err != nil {
		return nil, err
	}
	c, err := listing.Read(current)
	if err != nil {
		return nil, err
	}
	merged, err := listing.ReadText(current, reserved.MergedList, rootfs.MaxConfig)
	if err != nil {
		return nil, err
	}
	isMerged := strings.Split(string(merged), "\n")
	ids, err := users.Numbers(pristine, current)
	if err != nil {
		return nil, err
	}
	x.Tree = x.Tree.MapOwners(ids.Map)
	listing.HideMounted(c.Mounts, x.Tree, c.Tree)
	c.HideLeftOut(x.Tree, c.Tree)
	if err := errors.Join(compareFiltered(pristine, x.Tree), compareFiltered(current, c.Tree)); err != nil {
		return nil, err
	}
	list := []Difference{}
	for _, name := range slices.Sorted(maps.Keys(listing.EveryPath(c.Tree, x.Tree))) {
		d, differs := difference(name, c.Tree, x.Tree, rules)
		if !differs || reserved.Notes.Has(name) || reserved.Original(name) != "" || !asked(name, paths) {
			continue
		}
		if d.Change == Changed && slices.Contains(isMerged, name) {
			d.Change = Merged
		}
		if d.Change != Remade {
			d.Diff = diffTexts(name, pristine, current, c.Tree, x.Tree, slices.Contains(paths, name))
		}
		list = append(list, d)
	}
	return list, nil
}

// compareFiltered makes the fstab of a tree compare without the lines that a merge comments out.
func compareFiltered(dir string, tree listing.Tree) error {
	e, ok := tree["fstab"]
	if !ok || e.Kind != listing.File {
		return nil
	}
	text, err := listing.ReadText(dir, "fstab", fstab.MaxSize)
	e.Sum = listing.Sum(fstab.Filter(text))
	tree["fstab"] = e
	return err
}

// asked reports whether a path is one of those asked for, or below one.
func asked(name string, about []string) bool {
	return len(about) == 0 || slices.ContainsFunc(about, func(p string) bool { return paths.IsUnder(name, p) })
}

// difference returns how a path differs, and whether it does. Of a directory that only one side has, what is in it is
// listed.
func difference(name string, cur, next listing.Tree, rules derived.List) (Difference, bool) {
	c, inC := cur[name]
	x, inX := next[name]
	d := Difference{Path: name, Change: Changed, Fields: []string{}}
	switch {
	case name == "." || listing.Same(c, x, inC, inX) && !cur.Has(reserved.Beside(name)):
		return d, false
	case !inX:
		d.Change = Added
	case !inC:
		d.Change = Removed
	default:
		d.Fields = append(d.Fields, fieldsOf(c, x)...)
	}
	if e := c; !inC && x.Kind == listing.Dir || !inX && e.Kind == listing.Dir {
		for other := range listing.EveryPath(cur, next) {
			if path.Dir(other) == name {
				return d, false
			}
		}
	}
	isLink := inC && c.Kind == listing.Link || !inC && x.Kind == listing.Link
	target := c.Target
	if !inC {
		target = x.Target
	}
	switch {
	case reserved.OfImage.Has(name) || rules.Makes(name, target, isLink):
		d.Change = Remade
	case cur.Has(reserved.Beside(name)):
		d.Change, d.Beside = Conflicting, reserved.Beside(name)
	}
	return d, true
}

// fieldsOf returns what differs between two versions of a path.
func fieldsOf(c, x listing.Entry) []string {
	var fields []string
	add := func(name string, differs bool) {
		if differs {
			fields = append(fields, name)
		}
	}
	unmarked := func(e listing.Entry) listing.Entry {
		return listing.Entry{Kind: e.Kind, Xattrs: e.Xattrs, Flags: e.Flags}
	}
	add("kind", c.Kind != x.Kind)
	add("content", c.Kind == x.Kind && c.Content() != x.Content())
	add("mode", c.Kind == x.Kind && c.Kind != listing.Link && c.Mode != x.Mode)
	add("owner", c.UID != x.UID)
	add("group", c.GID != x.GID)
	add("attributes", c.Kind == x.Kind && !listing.Same(unmarked(c), unmarked(x), true, true))
	return fields
}

// diffTexts returns the difference of a text, "" if there is none to show.
func diffTexts(name, pristine, current string, cur, next listing.Tree, explicit bool) string {
	var texts [2][]byte
	for i, side := range []struct {
		from string
		tree listing.Tree
	}{{pristine, next}, {current, cur}} {
		e, ok := side.tree[name]
		if !ok {
			continue
		}
		if e.Kind != listing.File || !explicit && !worldReadable(name, side.tree) {
			return ""
		}
		text, err := listing.ReadStart(side.from, name, merge3.MaxText+1)
		if err != nil || !merge3.IsText(text) {
			return ""
		}
		texts[i] = text
	}
	return merge3.Unified("image/"+name, texts[0], "etc/"+name, texts[1])
}

// worldReadable reports whether everybody may read a file: nobody learns more from a difference than from the file.
func worldReadable(name string, tree listing.Tree) bool {
	if tree[name].Mode&unix.S_IROTH == 0 {
		return false
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if tree[dir].Mode&unix.S_IXOTH == 0 {
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
