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
	"github.com/updatectl/updatectl/switcher/copies"
)

// Seed copies the directories, with their content, that the image has at a state path and the host lacks. It returns
// those directories, relative to the state path. Existing directories are not touched: a file that is missing there may
// have been removed on purpose. skip lists paths, relative to the state path, that are not seeded. After an error there
// is no half of a copy, and what a killed run left beside the host's directories is removed.
func Seed(image, host string, owners copies.Owners, skip []string) ([]string, error) {
	var seeded []string
	var pairs [][2]string // temporary and final names
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
		pairs = append(pairs, [2]string{tmp, to})
		if err := copies.Tree(from, tmp, owners); err != nil {
			return err
		}
		return fs.SkipDir
	})
	if err == nil && len(pairs) > 0 {
		err = renameSeeded(pairs, host)
	}
	if err != nil {
		for _, c := range pairs {
			err = errors.Join(err, durable.RemoveAll(c[0]))
		}
		return seeded, fmt.Errorf("cannot seed %s: %w", host, err)
	}
	return seeded, nil
}

// renameSeeded syncs the copies to disk before it gives them their final names: an existing directory is never seeded
// again.
func renameSeeded(pairs [][2]string, host string) error {
	if err := durable.SyncFS(host); err != nil {
		return err
	}
	for _, c := range pairs {
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
