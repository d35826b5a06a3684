package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/inventory"
)

// The inventories of the layers of a root are in its directory: they get their names with the root, and go with it. A
// later root with the same layer has the same file, by a hard link, so one that is removed takes none from the others.

// Undamaged returns the complete roots in which fsck found no damage.
func Undamaged(s *Store) []Root {
	roots, _ := s.Roots() // what cannot be read is damaged
	return slices.DeleteFunc(roots, func(r Root) bool { return s.damagedRoots[r.ID] })
}

// Inventory returns the path of the inventory of a layer in a root.
func (r Root) Inventory(l inventory.Layer) string { return filepath.Join(r.Dir, l.Name()) }

// Inventory returns the path of the inventory of a layer in the root being staged.
func (g *Staging) Inventory(l inventory.Layer) string { return g.path(rootsDir, l.Name()) }

// KeepInventory gives the root being staged an inventory that another one has.
func (g *Staging) KeepInventory(file string) error {
	err := os.Link(file, g.path(rootsDir, filepath.Base(file)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot keep the inventory of a layer: %w", AsNoSpace(err))
	}
	return nil
}

// WriteInventory gives the root being staged the inventory that write writes, if that returns no error. Its errors are
// returned unchanged, and those of the disk as an ErrNoSpace where that is what they mean. Nothing is kept of an
// inventory that is too large.
func (g *Staging) WriteInventory(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(g.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o444)
	if err != nil {
		return fmt.Errorf("cannot write the inventory of a layer: %w", AsNoSpace(err))
	}
	defer os.Remove(f.Name()) // unless it has its name
	defer f.Close()
	out := bufio.NewWriterSize(f, 64<<10)
	err = write(out)
	if errors.Is(err, inventory.ErrTooLarge) {
		return nil
	}
	if err != nil {
		return AsNoSpace(err)
	}
	err = errors.Join(out.Flush(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), g.path(rootsDir, name))
	}
	if err != nil {
		return fmt.Errorf("cannot write the inventory of a layer: %w", AsNoSpace(err))
	}
	return nil
}

// Has reports whether the root being staged can refer to an object: one of size bytes is there, and its content is
// right, see [Store.CheckObjects].
func (g *Staging) Has(d fsverity.Digest, size int64) bool { return g.has(d, size) }

// inventories reads the inventories in a root's directory. One file may have names in several roots. The error is that
// of ctx.
func (c *fsck) inventories(ctx context.Context, id string) error {
	files, _ := filepath.Glob(c.store.path(rootsDir, id, inventory.Prefix+"*")) // the pattern is well-formed
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		var st unix.Stat_t
		isKnown := unix.Lstat(file, &st) == nil
		if isKnown && c.listed[st.Ino] {
			continue
		}
		err := inventory.Check(file)
		switch {
		case err == nil:
			c.listed[st.Ino] = isKnown
		case !errors.Is(err, fs.ErrNotExist): // gc may run beside this
			c.add(file, nil, err)
		}
	}
	return nil
}

// isInventory reports whether a path is that of an inventory in the store.
func isInventory(s *Store, path string) bool {
	dir, name := filepath.Split(path)
	ids, _ := s.ids()
	return slices.ContainsFunc(ids, func(id string) bool { return filepath.Clean(dir) == s.path(rootsDir, id) }) &&
		strings.HasPrefix(name, inventory.Prefix) && name != inventory.Prefix
}
