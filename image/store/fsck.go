package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/fsverity"
)

// FsckReport says what Fsck read, and what is damaged.
type FsckReport struct {
	Roots   int   `json:"roots"`
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"` // of the objects
	// Verified is the number of objects that the kernel verifies at each read.
	Verified int      `json:"verified"`
	Damage   []Damage `json:"damage"`
}

// Damage is a file or a directory in the store that is not what it should be.
type Damage struct {
	Path string `json:"path"`
	// Roots are those that need it. Objects of a root whose image is damaged are unknown: there may be none although that
	// root needs the object.
	Roots  []string `json:"roots"`
	Reason string   `json:"reason"`
}

// Fsck reads all roots and all objects, and reports what is damaged. check returns what else is wrong with a root.
// What Fsck finds is not reused until it is replaced, also if the kernel reports the right digest and only fails to
// read it. What is removed in the meantime is no damage. The error is that of ctx, or about the store as a whole.
func (s *Store) Fsck(ctx context.Context, check func(Root) error) (FsckReport, error) {
	c := fsck{store: s, users: map[fsverity.Digest][]string{}, verified: map[string]bool{}, known: checked{},
		listed: map[uint64]bool{}}
	c.report.Damage = []Damage{}
	s.damaged, s.damagedRoots = map[fsverity.Digest]bool{}, map[string]bool{}
	if err := forgetChecked(s); err != nil { // it must not outlive an interrupted run that finds damage
		return c.report, err
	}
	ids, err := s.ids()
	if err != nil {
		return c.report, err
	}
	for _, id := range ids {
		err := c.root(id, check)
		if err != nil && !c.isThere(id) { // gc may run beside this
			continue
		}
		c.report.Roots++
		if err != nil {
			s.damagedRoots[id] = true
			c.add(s.path(rootsDir, id), []string{id}, err)
		}
		if err := c.inventories(ctx, id); err != nil {
			return c.report, err
		}
	}
	if err := c.objects(ctx); err != nil {
		return c.report, err
	}
	return c.report, writeChecked(s, c.known)
}

// isThere reports whether a root has a directory, or that cannot be found out.
func (c *fsck) isThere(id string) bool {
	_, err := os.Lstat(c.store.path(rootsDir, id))
	return !errors.Is(err, fs.ErrNotExist)
}

// fsck is one run of Fsck.
type fsck struct {
	store *Store
	users map[fsverity.Digest][]string // the roots that refer to an object
	// verified are the roots whose image the kernel verifies. They are mounted with verity=require.
	verified map[string]bool
	known    checked
	listed   map[uint64]bool // the inode numbers of inventories that are intact
	report   FsckReport
}

func (c *fsck) add(path string, roots []string, reason error) {
	if roots == nil {
		roots = []string{}
	}
	c.report.Damage = append(c.report.Damage, Damage{Path: path, Roots: roots, Reason: reason.Error()})
}

// root reads a root and notes its objects.
func (c *fsck) root(id string, check func(Root) error) error {
	r, err := c.store.Root(id)
	if err == nil {
		err = check(r)
	}
	if err != nil {
		return err
	}
	f, err := durable.OpenRegular(r.CFS())
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := fsverity.Compute(f) // what the kernel knows does not say whether every block can be read
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", r.CFS(), err)
	}
	if d != r.Info.RootDigest {
		return fmt.Errorf("%s has the digest %s, and not %s", r.CFS(), d, r.Info.RootDigest)
	}
	_, err = fsverity.Measure(f)
	if err != nil && !errors.Is(err, fsverity.ErrNone) {
		return fmt.Errorf("cannot measure %s: %w", r.CFS(), err)
	}
	c.verified[id] = err == nil
	needs := map[fsverity.Digest]bool{}
	if err := addObjects(needs, f); err != nil {
		return err
	}
	for d := range needs {
		c.users[d] = append(c.users[d], id)
	}
	return nil
}

// objects reads every object that a root needs, and every other one that is there.
func (c *fsck) objects(ctx context.Context) error {
	there, err := c.walk()
	if err != nil {
		return err
	}
	all := maps.Clone(there)
	for d := range c.users {
		all[d] = true
	}
	for _, d := range slices.SortedFunc(maps.Keys(all), func(a, b fsverity.Digest) int {
		return slices.Compare(a[:], b[:])
	}) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := c.store.checkObject(d, c.known, true)
		if errors.Is(err, fs.ErrNotExist) && !slices.ContainsFunc(c.users[d], c.isThere) {
			continue // gc removed it since it was listed
		}
		c.report.Objects++
		if err != nil {
			c.store.damaged[d] = true
			c.add(c.store.object(d), c.users[d], err)
			continue
		}
		if st, err := os.Stat(c.store.object(d)); err == nil {
			c.report.Bytes += st.Size()
		}
		if _, plain := c.known[d]; !plain {
			c.report.Verified++
		} else if i := slices.IndexFunc(c.users[d], func(id string) bool { return c.verified[id] }); i >= 0 {
			c.add(c.store.object(d), c.users[d], fmt.Errorf("its content is right, but it has no fs-verity, so reading "+
				"it fails in the root %s, which has", c.users[d][i]))
		}
	}
	return nil
}

// walk returns the objects that are there. A file with any other name is damage.
func (c *fsck) walk() (map[fsverity.Digest]bool, error) {
	there := map[fsverity.Digest]bool{}
	dir := c.store.ObjectsDir()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return nil // no root was ever staged
		}
		if err != nil {
			return err
		}
		object, err := objectAt(path, dir)
		switch {
		case err == nil:
			there[object] = true
			if d.IsDir() { // checkObject says what is wrong with it
				return filepath.SkipDir
			}
		case !d.IsDir():
			c.add(path, nil, errors.New("its name is not that of an object; gc removes it"))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the objects: %w", err)
	}
	return there, nil
}

// Unswap exchanges the directories of two roots that have each other's files, and reports whether there were any.
func (s *Store) Unswap() (swapped bool, err error) {
	ids, err := s.ids()
	if err != nil {
		return false, err
	}
	is := map[string]string{} // which root the files in a directory are about
	for _, id := range ids {
		info, err := readInfo(s.path(rootsDir, id, infoName))
		if err == nil && info.Digest != "" {
			is[id] = info.Digest.Algorithm().String() + "-" + info.Digest.Encoded()
		}
	}
	for _, id := range ids {
		other := is[id]
		if id < other && is[other] == id {
			swapped = true
			err = errors.Join(err, exchange(s, id, other))
		}
	}
	return swapped, err
}

// exchange exchanges the directories of two roots, and removes neither.
func exchange(s *Store, a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, s.path(rootsDir, a), unix.AT_FDCWD, s.path(rootsDir, b), unix.RENAME_EXCHANGE)
	if err == nil {
		err = durable.SyncDir(s.path(rootsDir))
	}
	if err != nil {
		return fmt.Errorf("cannot exchange the directories of %s and %s: %w", a, b, err)
	}
	return nil
}

// At returns a root that may be damaged. Its Info is empty if it cannot be read or is about another root.
func (s *Store) At(id string) (Root, error) {
	if !validID.MatchString(id) {
		return Root{}, fmt.Errorf("%w: %q", ErrNoRoot, id)
	}
	if r, err := s.Root(id); err == nil {
		return r, nil
	}
	return Root{ID: id, Dir: s.path(rootsDir, id)}, nil
}

// Discard removes a damaged object that no root refers to, or a damaged inventory of a layer, without which the layer
// is fetched. No root must be damaged: the objects that it needs are unknown.
func (s *Store) Discard(d Damage) error {
	rel, err := filepath.Rel(s.ObjectsDir(), d.Path)
	isObject := err == nil && filepath.IsLocal(rel) && rel != "."
	if len(d.Roots) > 0 || !isObject && !isInventory(s, d.Path) {
		return fmt.Errorf("cannot remove %s: only an object or an inventory that no root needs may be removed", d.Path)
	}
	if err := durable.RemoveAll(d.Path); err != nil {
		return fmt.Errorf("cannot remove %s: %w", d.Path, err)
	}
	return nil
}
