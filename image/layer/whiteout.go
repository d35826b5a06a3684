package layer

import (
	"fmt"
	"strings"
)

const (
	// WhiteoutPrefix starts a name that stands for the deletion of what follows it.
	WhiteoutPrefix = ".wh."
	// opaqueMarker hides everything that lower layers have in its directory.
	opaqueMarker = ".wh..wh..opq"
	// aufsPrefix starts the names of AUFS metadata, which old tools left in layers.
	aufsPrefix = ".wh..wh."
)

// whiteout applies an entry whose name makes it a whiteout, whatever its type. It returns false for any other entry.
func (t *Tree) whiteout(path []string) (done bool, err error) {
	for _, part := range path {
		if strings.HasPrefix(part, aufsPrefix) && part != opaqueMarker {
			return true, nil
		}
	}
	for _, part := range path[:len(path)-1] {
		if strings.HasPrefix(part, WhiteoutPrefix) {
			return true, fmt.Errorf("%w: %q is below a whiteout", ErrLayer, strings.Join(path, "/"))
		}
	}
	name := path[len(path)-1]
	if !strings.HasPrefix(name, WhiteoutPrefix) {
		return false, nil
	}
	if name == opaqueMarker {
		return true, t.makeOpaque(path[:len(path)-1])
	}
	return true, t.whiteoutName(path, strings.TrimPrefix(name, WhiteoutPrefix))
}

// whiteoutName removes a name that lower layers wrote.
func (t *Tree) whiteoutName(path []string, name string) error {
	switch name {
	case "", ".", "..":
		return fmt.Errorf("%w: the whiteout %q names nothing", ErrLayer, strings.Join(path, "/"))
	}
	dir, _, err := t.find(path)
	if err != nil || dir == nil {
		return err
	}
	if e, ok := dir.children[name]; ok {
		t.hide(dir, name, e)
	}
	return nil
}

// makeOpaque removes everything from a directory that lower layers wrote.
func (t *Tree) makeOpaque(path []string) error {
	w := walker{tree: t}
	dir, err := w.walk(path)
	if err != nil || dir == nil {
		return err
	}
	for name, e := range dir.children {
		t.hide(dir, name, e)
	}
	return nil
}

// hide removes a name, unless this layer wrote it or something below it. The position of a whiteout in its layer does
// not matter.
func (t *Tree) hide(dir *Inode, name string, e entry) {
	for child, below := range e.children {
		t.hide(e.Inode, child, below)
	}
	switch {
	case e.layer == t.layer:
	case len(e.children) == 0:
		delete(dir.children, name)
	default:
		// The directory of the lower layers is removed. What holds the entries of this layer is the directory that
		// they would have made if the whiteout had come first.
		children := e.children
		*e.Inode = *newDir(e.path)
		e.Inode.children = children
		dir.children[name] = entry{e.Inode, t.layer}
	}
}
