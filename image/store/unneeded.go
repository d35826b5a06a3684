package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

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
	report.Bytes = begunBytes(s)
	err = s.eachUnused(used, &report, func(string) error { return nil })
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // no store yet
		return report, fmt.Errorf("cannot measure what nothing needs: %w", err)
	}
	return report, nil
}
