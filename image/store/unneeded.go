package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
)

// Unneeded returns what [Store.GC] would remove, and removes nothing.
func (s *Store) Unneeded(keep []string) (GCReport, error) {
	report := GCReport{Roots: []string{}}
	ids, err := s.ids()
	if err != nil {
		return report, err
	}
	used := map[fsverity.Digest]bool{}
	for _, id := range ids {
		if !slices.Contains(keep, id) {
			report.Roots = append(report.Roots, id)
			continue
		}
		if err := s.markObjects(id, used); err != nil {
			return report, fmt.Errorf("cannot tell what nothing needs: the root %s: %w", id, err)
		}
	}
	err = filepath.WalkDir(s.ObjectsDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		digest, perr := fsverity.Parse(filepath.Base(filepath.Dir(path)) + d.Name())
		if perr == nil && used[digest] {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		report.Objects++
		report.Bytes += st.Blocks * 512
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // no store yet
		return report, fmt.Errorf("cannot measure what nothing needs: %w", err)
	}
	return report, nil
}
