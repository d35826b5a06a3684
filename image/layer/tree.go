package layer

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
)

// Inode is a file, directory, symbolic link or device in the tree. One that is not a directory can have several names.
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
	path     int              // length of the path of a directory
}

// entry is what a name in a directory stands for, and the layer that wrote it last.
type entry struct {
	*Inode
	layer int
}

// Type returns the S_IFMT bits of the mode.
func (n *Inode) Type() uint32 { return n.Mode & unix.S_IFMT }

// IsDir reports whether n is a directory.
func (n *Inode) IsDir() bool { return n.Type() == unix.S_IFDIR }

// IsRegular reports whether n is a regular file.
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

// Child returns the inode that has that name in a directory, or nil.
func (n *Inode) Child(name string) *Inode { return n.children[name].Inode }

// Tree is the root file system that results from the layers applied so far.
type Tree struct {
	root     *Inode
	layer    int // number of the layer being applied, counted from 1
	entries  int // all that were ever added, also those that were removed
	metadata int
	content  int64
}

// NewTree returns a tree with an empty root directory.
func NewTree() *Tree { return &Tree{root: newDir(0)} }

// newDir returns a directory without an entry of its own, as mkdir -p would make it.
func newDir(path int) *Inode {
	return &Inode{Mode: unix.S_IFDIR | 0o755, children: map[string]entry{}, path: path}
}

// Root returns the root directory.
func (t *Tree) Root() *Inode { return t.root }

// Content returns the bytes of all files in all layers, including files that a later layer replaces.
func (t *Tree) Content() int64 { return t.content }

// Lookup returns the inode that a process inside the tree would find at path, or nil. Symbolic links are followed,
// including the last component.
func (t *Tree) Lookup(path string) *Inode {
	w := walker{tree: t}
	n, err := w.walk(strings.Split(path, "/"))
	if err != nil {
		return nil
	}
	return n
}

// Walk visits every name in order, a directory before its contents.
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

// parent returns the directory of a new entry, and makes the missing ones on the way.
func (t *Tree) parent(path []string) (*Inode, error) {
	w := walker{tree: t, create: true}
	dir, err := w.walk(path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	if !dir.IsDir() {
		return nil, fmt.Errorf("%w: the parent of %q is not a directory", ErrLayer, strings.Join(path, "/"))
	}
	return dir, nil
}

// find returns the directory and the inode of a path, whose last component is not followed. Both are nil if it does
// not exist.
func (t *Tree) find(path []string) (dir, n *Inode, err error) {
	w := walker{tree: t}
	dir, err = w.walk(path[:len(path)-1])
	if err != nil || dir == nil || !dir.IsDir() {
		return nil, nil, err
	}
	return dir, dir.Child(path[len(path)-1]), nil
}

// set gives an inode a name in a directory, and replaces what had that name.
func (t *Tree) set(dir *Inode, name string, n *Inode) error {
	if err := checkLength(name); err != nil {
		return err
	}
	if dir.path+1+len(name) > maxPath {
		return fmt.Errorf("%w: the path that ends in %q is longer than %d bytes", ErrLimit, name, maxPath)
	}
	if t.entries++; t.entries > maxEntries {
		return fmt.Errorf("%w: it has more than %d entries", ErrLimit, maxEntries)
	}
	if err := t.charge(len(name)); err != nil {
		return err
	}
	dir.children[strings.Clone(name)] = entry{n, t.layer}
	return nil
}

// charge counts the memory that names, links and attributes take.
func (t *Tree) charge(bytes int) error {
	if t.metadata += bytes; t.metadata > maxMetadata {
		return fmt.Errorf("%w: its names, links and attributes have more than %d bytes", ErrLimit, maxMetadata)
	}
	return nil
}

// walker resolves paths inside the tree like a process in a chroot: ".." stops at the root, and absolute links start
// there.
type walker struct {
	tree   *Tree
	create bool
	links  int
}

// walk returns the inode at path. What is missing is created, or the result is nil.
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
				return nil, fmt.Errorf("%w: a parent of %q is not a directory", ErrLayer, name)
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
			return nil, fmt.Errorf("%w: there are more than %d symbolic links on the way to %q", ErrLayer, maxSymlinks,
				name)
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
