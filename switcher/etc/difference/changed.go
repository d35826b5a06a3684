package difference

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

// ChangedSince returns the paths in an /etc, without the user databases and what describes the image, whose content or
// attributes changed after a time; they are sorted. A directory counts only by what is in it.
func ChangedSince(dir string, at time.Time) ([]string, error) {
	var changed []string
	err := filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && full != dir { // it has vanished meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, full)
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		ours := slices.Contains(table.Files, name) || reserved.Backups.Has(name) || reserved.OfImage.Has(name) ||
			name == ".pwd.lock"
		if !ours && time.Unix(st.Ctim.Unix()).After(at) {
			changed = append(changed, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot look what changed in /etc: %w", err)
	}
	return changed, nil
}
