// Package listing reads what is at each path of an /etc, with all that a copy of it gets: content, owner, mode,
// extended attributes, flags and time. It promises to follow no symbolic link and to enter no mount; that all it says
// about a path is read from one descriptor; and that a copy has the content that was listed. Users who own a directory
// in /etc may exchange what is in it at any moment.
package listing

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"time"

	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// Kind is the type of a file. Sockets and FIFOs belong to running programs and are never listed.
type Kind byte

const (
	File   Kind = 'f'
	Dir    Kind = 'd'
	Link   Kind = 'l'
	Device Kind = 'n'
)

// Entry is everything about a path that the decision compares and that a copy gets.
type Entry struct {
	Kind     Kind
	Mode     uint32 // permission bits; for a device with its type
	UID, GID uint32
	Sum      string // of a file's content
	Target   string // of a symbolic link
	Rdev     uint64 // of a device
	Xattrs   map[string]string
	Flags    int // of durable.Protected, for a file or a directory
	MTime    time.Time
	// Foreign is whether it lies in a directory, or below one, that others than root can write in. It is not compared.
	Foreign bool
}

// Tree is a tree by path relative to /etc; "." is /etc itself.
type Tree map[string]Entry

// Label is not compared: policies differ between images, and the label comes with the content that wins.
const Label = "security.selinux"

// Same reports whether two sides have the same at a path. Times are not compared.
func Same(a, b Entry, inA, inB bool) bool {
	if !inA || !inB {
		return inA == inB
	}
	if a.Kind != b.Kind || a.UID != b.UID || a.GID != b.GID || a.Sum != b.Sum || a.Target != b.Target || a.Rdev != b.Rdev {
		return false
	}
	if a.Flags != b.Flags { // who protects a file by chattr(1) does not want it changed
		return false
	}
	if a.Kind != Link && a.Mode != b.Mode { // the mode of a symbolic link means nothing
		return false
	}
	unlabelled := func(x map[string]string) map[string]string {
		x = maps.Clone(x)
		delete(x, Label)
		return x
	}
	return maps.Equal(unlabelled(a.Xattrs), unlabelled(b.Xattrs))
}

// MapOwners returns the tree with other owners.
func (l Tree) MapOwners(ids func(uid, gid uint32) (uint32, uint32)) Tree {
	out := Tree{}
	for name, e := range l {
		e.UID, e.GID = ids(e.UID, e.GID)
		out[name] = e
	}
	return out
}

// Has reports whether the tree has a path.
func (l Tree) Has(name string) bool { _, ok := l[name]; return ok }

// EveryPath returns the paths that any tree has.
func EveryPath(sides ...Tree) map[string]bool {
	names := map[string]bool{}
	for _, l := range sides {
		for name := range l {
			names[name] = true
		}
	}
	return names
}

// Content is what a file, link or device is, without what is said about it.
type Content struct {
	Sum, Target string
	Rdev        uint64
}

// Content returns what a file, link or device is.
func (e Entry) Content() Content { return Content{e.Sum, e.Target, e.Rdev} }

// Sum returns the [Entry.Sum] of a file with this content, which is not larger than plainSize.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// HideMounted makes unchanged, as it is in a base, what mounts hide in a tree.
func HideMounted(mounts []string, base, tree Tree) {
	for _, m := range mounts {
		for name, e := range base {
			if paths.IsUnder(name, m) {
				tree[name] = e
			}
		}
	}
}

// HideLeftOut makes unchanged, as it is in a base, what a directory has and its tree does not list.
func (d Directory) HideLeftOut(base, tree Tree) {
	for _, top := range d.LeftOut {
		for name, e := range base {
			if paths.IsUnder(name, top) && !tree.Has(name) {
				tree[name] = e
			}
		}
	}
}
