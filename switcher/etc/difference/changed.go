package difference

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

// ChangedSince returns the paths in an /etc, without the user databases and what describes the image, whose content or
// attributes changed after a time; they are sorted. A directory counts only by what is in it.
func ChangedSince(dir string, at time.Time) ([]string, error) {
	var changed []string
	root, err := os.OpenRoot(dir) // a user who owns a directory in it cannot lead the walk out of it
	if err != nil {
		return nil, fmt.Errorf("cannot look what changed in /etc: %w", err)
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != "." { // it has vanished meanwhile
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
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
