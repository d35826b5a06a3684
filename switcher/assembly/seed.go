package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/durable"
)

// Owners maps the uids and gids of an image to those of the same names on the host. A number that is missing stays as
// it is.
type Owners struct{ UID, GID map[uint32]uint32 }

func (o Owners) uid(id uint32) uint32 { return mappedID(o.UID, id) }

func (o Owners) gid(id uint32) uint32 { return mappedID(o.GID, id) }

func mappedID(m map[uint32]uint32, id uint32) uint32 {
	if to, ok := m[id]; ok {
		return to
	}
	return id
}

// Seed copies the directories, with their content, that the image has at a state path and the host lacks. It returns
// those directories, relative to the state path. Existing directories are not touched: a file that is missing there may
// have been removed on purpose. skip lists paths, relative to the state path, that are not seeded. After an error there
// is no half of a copy, and what a killed run left beside the host's directories is removed.
func Seed(image, host string, owners Owners, skip []string) ([]string, error) {
	var seeded []string
	var copies [][2]string // temporary and final names
	err := filepath.WalkDir(image, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(image, from)
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if slices.Contains(skip, rel) {
			return fs.SkipDir
		}
		to := filepath.Join(host, rel)
		st, err := os.Lstat(to)
		switch {
		case err == nil && st.IsDir():
			removeHalfCopies(to)
			return nil
		case err == nil: // the host has a link or a file there
			return fs.SkipDir
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		seeded = append(seeded, rel)
		tmp := filepath.Join(filepath.Dir(to), halfCopy+filepath.Base(to))
		copies = append(copies, [2]string{tmp, to})
		if err := copyTree(from, tmp, owners); err != nil {
			return err
		}
		return fs.SkipDir
	})
	if err == nil && len(copies) > 0 {
		err = renameSeeded(copies, host)
	}
	if err != nil {
		for _, c := range copies {
			err = errors.Join(err, durable.RemoveAll(c[0]))
		}
		return seeded, fmt.Errorf("cannot seed %s: %w", host, err)
	}
	return seeded, nil
}

// renameSeeded syncs the copies to disk before it gives them their final names: an existing directory is never seeded
// again.
func renameSeeded(copies [][2]string, host string) error {
	if err := durable.SyncFS(host); err != nil {
		return err
	}
	for _, c := range copies {
		if err := os.Rename(c[0], c[1]); err != nil {
			return err
		}
	}
	return nil
}

// halfCopy begins the temporary name of a copy, beside its final place.
const halfCopy = ".updatectl-seed-"

// removeHalfCopies removes what a killed run left in a directory. What cannot be removed costs space only, and keeps
// no host from its way.
func removeHalfCopies(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), halfCopy) {
			durable.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

// copyTree copies a directory to tmp, which does not exist.
func copyTree(from, tmp string, owners Owners) error {
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return copyEntry(p, filepath.Join(tmp, rel), d)
	})
	if err != nil {
		return err
	}
	return copyTreeAttributes(from, tmp, owners)
}

func copyEntry(from, to string, d fs.DirEntry) error {
	switch d.Type() {
	case fs.ModeDir:
		return os.Mkdir(to, 0o700)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case 0:
		return copyFile(from, to, 0o600)
	}
	return nil // sockets, pipes and devices of an image hold no state
}

// copyTreeAttributes copies the attributes of a tree. It must run when the content is complete, and goes from the
// leaves up, so that directories keep their times.
func copyTreeAttributes(from, to string, owners Owners) error {
	var paths []string
	err := filepath.WalkDir(to, func(p string, _ fs.DirEntry, err error) error {
		paths = append(paths, p)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(paths) {
		rel, err := filepath.Rel(to, p)
		if err != nil {
			return err
		}
		if err := copyAttributes(filepath.Join(from, rel), p, owners); err != nil {
			return err
		}
	}
	return nil
}
