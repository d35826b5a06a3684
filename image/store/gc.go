package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
)

// GCReport says what GC removed.
type GCReport struct {
	Roots   []string `json:"roots"`
	Objects int      `json:"objects"`
	Bytes   int64    `json:"bytes"` // of disk space that was freed
	// LivePatches are the names of removed live patches. They are not part of this store: the caller fills them in.
	LivePatches []string `json:"live_patches,omitempty"`
	// Warnings say which roots stay although nothing needs them, and why.
	Warnings []string `json:"warnings,omitempty"`
}

// GC removes the roots that are not in keep, complete or not, the objects that no remaining root refers to, and the
// leftovers of interrupted staging. IDs in keep that are not in the store are ignored. A root in mounted, which has a
// mount point for each root that is in use, stays, with a warning. The references are read from the composefs images,
// which are the files that get mounted. If that of a root in keep is damaged or missing, nothing is removed; if that
// of another root that stays, no object is. What cannot be removed does not keep GC from the rest.
func (s *Store) GC(keep []string, mounted map[string]string) (GCReport, error) {
	report := GCReport{Roots: []string{}}
	ids, err := s.ids()
	if err != nil {
		return report, err
	}
	used := map[fsverity.Digest]bool{}
	var remove []string
	for _, id := range ids {
		if !slices.Contains(keep, id) {
			remove = append(remove, id)
			continue
		}
		if err := s.markObjects(id, used); err != nil {
			return report, fmt.Errorf("cannot collect garbage: the root %s: %w", id, err)
		}
	}
	var faults, unknown []error
	for _, id := range remove {
		at, isMounted := mounted[id]
		if isMounted {
			report.Warnings = append(report.Warnings, fmt.Sprintf(
				"nothing needs the root %s, but it stays: it is in use by a mount at %s; unmount that, then run `updatectl gc`",
				id, at))
		} else if err := s.removeRoot(id); err != nil {
			faults = append(faults, err)
		} else {
			report.Roots = append(report.Roots, id)
			continue
		}
		if err := s.markObjects(id, used); err != nil {
			unknown = append(unknown, fmt.Errorf("no object is removed, because the root %s stays: %w", id, err))
		}
	}
	report.Bytes += begunBytes(s)
	faults = append(faults, sweep(s, func(fs.DirEntry) bool { return false }))
	if len(unknown) == 0 {
		if err := s.eachUnused(used, &report, os.Remove); err != nil {
			faults = append(faults, fmt.Errorf("cannot remove objects: %w", err))
		}
	}
	return report, errors.Join(append(faults, unknown...)...)
}

// markObjects adds the objects that a root refers to.
func (s *Store) markObjects(id string, used map[fsverity.Digest]bool) error {
	r, err := s.Root(id)
	if errors.Is(err, ErrNoRoot) {
		return errors.New("it has lost a part, so the objects that it needs are unknown; stage it again first")
	}
	if err != nil {
		return err
	}
	f, err := r.openCFS()
	if err != nil {
		return err
	}
	defer f.Close()
	return addObjects(used, f)
}

// openCFS opens the composefs image of a root, which is intact. The caller closes it.
func (r Root) openCFS() (*os.File, error) {
	f, err := durable.OpenRegular(r.CFS())
	if err != nil {
		return nil, err
	}
	d, err := composefs.Digest(f)
	if err == nil && d != r.Info.RootDigest {
		err = fmt.Errorf("%w: its digest is %s and not %s", composefs.ErrImage, d, r.Info.RootDigest)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// maxInMemory is up to which size, in bytes, a composefs image is read into memory to look at its objects. That of a
// server root has 13 MB, and the look at it takes a hundred thousand reads of a few bytes.
const maxInMemory = 48 << 20

// addObjects adds the objects that a composefs image refers to.
func addObjects(to map[fsverity.Digest]bool, cfs *os.File) error {
	var image io.ReaderAt = cfs
	if st, err := cfs.Stat(); err == nil && st.Size() <= maxInMemory {
		whole := make([]byte, st.Size())
		if _, err := cfs.ReadAt(whole, 0); err != nil {
			return fmt.Errorf("%w: %w", composefs.ErrImage, err)
		}
		image = bytes.NewReader(whole)
	}
	return composefs.Objects(image, func(d fsverity.Digest) { to[d] = true })
}

// removeRoot hides a root with one rename; Sweep removes it. It makes no directory, for which a full disk has no room.
func (s *Store) removeRoot(id string) error {
	grave := s.path(stagingDir, "removed-"+id)
	err := durable.RemoveAll(grave) // of a run that was killed
	if err == nil {
		err = (durable.OS{}).Rename(s.path(rootsDir, id), grave)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the root %s: %w", id, AsNoSpace(err))
	}
	// This must be durable before an object is removed: a root that came back after a power cut would lack objects.
	if err := durable.SyncDir(s.path(rootsDir)); err != nil {
		return fmt.Errorf("cannot remove the root %s: %w", id, AsNoSpace(err))
	}
	return nil
}

// eachUnused calls remove with every file below the object directory that no root uses, whatever its name, and counts
// those for which it returns nil. It stops at the first error.
func (s *Store) eachUnused(used map[fsverity.Digest]bool, report *GCReport, remove func(string) error) error {
	return filepath.WalkDir(s.ObjectsDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if digest, err := objectAt(path, s.ObjectsDir()); err == nil && used[digest] {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if err := remove(path); err != nil {
			return err
		}
		report.Objects++
		report.Bytes += st.Blocks * 512
		return nil
	})
}

// objectAt returns the object that has its final name at a path below the object directory.
func objectAt(path, objects string) (fsverity.Digest, error) {
	rel, err := filepath.Rel(objects, path)
	if err != nil {
		return fsverity.Digest{}, err
	}
	shard, name := filepath.Split(rel)
	return fsverity.Parse(filepath.Clean(shard) + name)
}

// Sweep removes the leftovers of staging, and files that a killed agent left half written. What a run has begun stays
// for a week, for one that goes on; [Store.GC] removes that, too.
func (s *Store) Sweep() error {
	return sweep(s, func(e fs.DirEntry) bool { return mayGoOn(s, e) })
}

// sweep removes everything from the staging directory but what stays.
func sweep(s *Store, stays func(fs.DirEntry) bool) error {
	entries, err := os.ReadDir(s.path(stagingDir))
	if err != nil {
		return fmt.Errorf("cannot clean up the store: %w", err)
	}
	for _, e := range entries {
		if !stays(e) {
			err = errors.Join(err, durable.RemoveAll(s.path(stagingDir, e.Name())))
		}
	}
	for _, pattern := range []string{s.path(rootsDir, "*", ".*.json.*"), s.path("." + checkedName + ".*")} {
		halves, gerr := filepath.Glob(pattern)
		err = errors.Join(err, gerr)
		for _, half := range halves {
			err = errors.Join(err, os.RemoveAll(half)) // fsck may run beside this, and give it its name
		}
	}
	if err != nil {
		return fmt.Errorf("cannot clean up the store: %w", err)
	}
	return nil
}
