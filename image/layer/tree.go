package layer

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
)

// Inode is one file, directory, link or device of the tree. Several names may share one that is not a directory.
type Inode struct {
	Mode     uint32 // type and permission bits as in st_mode
	UID, GID uint32
	Mtime    int64 // seconds since 1970
	MtimeNs  uint32
	Major    uint32 // of a device
	Minor    uint32
	Size     int64           // of a regular file
	Object   fsverity.Digest // content of a regular file that is not empty
	Target   string          // of a symbolic link
	Xattrs   map[string]string

	children map[string]entry // of a directory
	path     int              // length of a directory's path
}

// entry is a name in a directory, with the layer that last wrote it.
type entry struct {
	*Inode
	layer int
}

// Type returns the S_IFMT bits of the mode.
func (n *Inode) Type() uint32 { return n.Mode & unix.S_IFMT }

// IsDir tells whether n is a directory.
func (n *Inode) IsDir() bool { return n.Type() == unix.S_IFDIR }

// IsRegular tells whether n is a regular file.
func (n *Inode) IsRegular() bool { return n.Type() == unix.S_IFREG }

// Names returns the names in a directory, sorted.
func (n *Inode) Names() []string {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Child returns what a directory has under that name, or nil.
func (n *Inode) Child(name string) *Inode { return n.children[name].Inode }

// Tree is the root file system that the layers applied so far make.
type Tree struct {
	root     *Inode
	layer    int // number of the layer being applied, from 1
	entries  int // ever added, so that removing does not earn new ones
	metadata int
	content  int64
}

// NewTree returns an empty root directory.
func NewTree() *Tree { return &Tree{root: newDir(0)} }

// newDir returns a directory nobody described: what mkdir -p would make.
func newDir(path int) *Inode {
	return &Inode{Mode: unix.S_IFDIR | 0o755, children: map[string]entry{}, path: path}
}

// Root returns the root directory.
func (t *Tree) Root() *Inode { return t.root }

// Content returns the size of all files, counted once for each time a layer brought one.
func (t *Tree) Content() int64 { return t.content }

// Lookup finds a path as a process inside the tree would, following symbolic links, the last one too. It returns nil
// when there is nothing.
func (t *Tree) Lookup(path string) *Inode {
	w := walker{tree: t}
	n, err := w.walk(strings.Split(path, "/"))
	if err != nil {
		return nil
	}
	return n
}

// Walk visits every name, a directory before what is in it, in the order of their names.
func (t *Tree) Walk(visit func(path string, n *Inode) error) error {
	return walk("", t.root, visit)
}

func walk(path string, n *Inode, visit func(string, *Inode) error) error {
	if err := visit(path, n); err != nil {
		return err
	}
	for _, name := range n.Names() {
		child := name
		if path != "" {
			child = path + "/" + name
		}
		if err := walk(child, n.Child(name), visit); err != nil {
			return err
		}
	}
	return nil
}

// parent finds the directory that a new entry goes into and makes those that are missing.
func (t *Tree) parent(path []string) (*Inode, error) {
	w := walker{tree: t, create: true}
	dir, err := w.walk(path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	if !dir.IsDir() {
		return nil, fmt.Errorf("%w: parent of %q is not a directory", ErrLayer, strings.Join(path, "/"))
	}
	return dir, nil
}

// find returns the directory and the inode of a path whose last component is not followed; both are nil when there is
// nothing.
func (t *Tree) find(path []string) (dir, n *Inode, err error) {
	w := walker{tree: t}
	dir, err = w.walk(path[:len(path)-1])
	if err != nil || dir == nil || !dir.IsDir() {
		return nil, nil, err
	}
	return dir, dir.Child(path[len(path)-1]), nil
}

// set gives a directory a name, replacing what had it.
func (t *Tree) set(dir *Inode, name string, n *Inode) error {
	if len(name) > maxName {
		return fmt.Errorf("%w: name of %d bytes, at most %d are possible", ErrLimit, len(name), maxName)
	}
	if dir.path+1+len(name) > maxPath {
		return fmt.Errorf("%w: path ending in %q is longer than %d bytes", ErrLimit, name, maxPath)
	}
	if t.entries++; t.entries > maxEntries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, maxEntries)
	}
	if err := t.charge(len(name)); err != nil {
		return err
	}
	dir.children[strings.Clone(name)] = entry{n, t.layer}
	return nil
}

// charge accounts for memory that a layer makes the tree use.
func (t *Tree) charge(bytes int) error {
	if t.metadata += bytes; t.metadata > maxMetadata {
		return fmt.Errorf("%w: more than %d bytes of names, links and attributes", ErrLimit, maxMetadata)
	}
	return nil
}

// walker resolves paths within the tree. It is the in-memory counterpart of a chroot: ".." stops at the root and
// absolute links start there.
type walker struct {
	tree   *Tree
	create bool
	links  int
}

// walk returns the inode at path, or nil if something on the way is missing and is not to be created.
func (w *walker) walk(path []string) (*Inode, error) {
	stack := []*Inode{w.tree.root}
	todo := slices.Clone(path)
	slices.Reverse(todo) // the next component is the last element
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		here := stack[len(stack)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		if !here.IsDir() {
			if w.create {
				return nil, fmt.Errorf("%w: a parent above %q is not a directory", ErrLayer, name)
			}
			return nil, nil
		}
		next := here.Child(name)
		if next == nil {
			if !w.create {
				return nil, nil
			}
			next = newDir(here.path + 1 + len(name))
			if err := w.tree.set(here, name, next); err != nil {
				return nil, err
			}
		}
		if next.Type() != unix.S_IFLNK {
			stack = append(stack, next)
			continue
		}
		if w.links++; w.links > maxSymlinks {
			return nil, fmt.Errorf("%w: more than %d symbolic links on the way to %q", ErrLayer, maxSymlinks, name)
		}
		if strings.HasPrefix(next.Target, "/") {
			stack = stack[:1]
		}
		parts := strings.Split(next.Target, "/")
		slices.Reverse(parts)
		todo = append(todo, parts...)
	}
	return stack[len(stack)-1], nil
}
