package difference

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/etc/users"
)

// Taken is what became of a path that was taken from the image.
type Taken struct {
	Path string `json:"path"` // absolute
	// Removed is whether the image has no such file, so that this host has none any more.
	Removed bool `json:"removed"`
	// Backup is where the former version is, "" if there was none.
	Backup string `json:"backup,omitempty"`
	// Undo is a shell command that brings the former version back.
	Undo string `json:"undo"`
}

// Take replaces a file or link in the /etc at current, which is /etc for this host, by the image's version. The former
// one is kept beside it under a name that nothing loads. The image's version that a conflict has left there is removed.
// After an error, the file is as before. The error is an ErrNotTaken or one of the file system.
func Take(pristine, current, name string, at time.Time) (Taken, error) {
	rel, err := relative(name)
	if err != nil {
		return Taken{}, err
	}
	t := Taken{Path: path.Join("/etc", rel)}
	x, c, err := takeable(pristine, current, rel)
	if err != nil {
		return t, err
	}
	// Somebody else than root may own the directory, and exchange whatever is in it.
	in, err := listing.OpenSource(current)
	if err != nil {
		return t, err
	}
	defer in.Close()
	above, err := in.Below(path.Dir(rel))
	if err != nil {
		return t, err
	}
	defer above.Close()
	dir, base := above.Path(), path.Base(rel)
	full, fresh := filepath.Join(dir, base), filepath.Join(dir, reserved.Hidden+rand.Text()+".dpkg-tmp")
	backup := backupName(base, at)
	t.Undo = "rm " + quoted(t.Path)
	if c != nil {
		t.Backup = path.Join("/etc", path.Dir(rel), backup)
		t.Undo = "mv -T " + quoted(t.Backup) + " " + quoted(t.Path)
	}
	if x != nil {
		if err = makeFrom(pristine, rel, *x, fresh); err == nil {
			err = durable.SyncFS(dir)
		}
	}
	if err == nil && c != nil {
		err = os.Link(full, filepath.Join(dir, backup)) // of a symbolic link, too: link(2) does not follow it
	}
	switch {
	case err == nil && x != nil:
		err = os.Rename(fresh, full)
	case err == nil:
		t.Removed = true
		err = os.Remove(full)
	}
	if err != nil {
		if rerr := os.Remove(fresh); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return t, fmt.Errorf("cannot take %s from the image: %w", t.Path, err)
	}
	err = os.Remove(filepath.Join(dir, path.Base(reserved.Beside(rel))))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENAMETOOLONG) {
		return t, fmt.Errorf("cannot remove the version of the image beside %s: %w", t.Path, err)
	}
	return t, durable.SyncDir(dir)
}

// makeFrom makes a file or link of a pristine /etc at a new path.
func makeFrom(pristine, rel string, e listing.Entry, to string) error {
	from, err := listing.OpenSource(pristine)
	if err != nil {
		return err
	}
	defer from.Close()
	return e.Make(nil, from, rel, to, map[string]bool{})
}

// backupName returns the name of the former version of a file, which nothing loads. Of a long name, its end is left
// out.
func backupName(base string, at time.Time) string {
	const maxName = 255 // bytes, NAME_MAX
	end := at.UTC().Format(".20060102-150405") + ".dpkg-old"
	return reserved.Hidden + base[:min(len(base), maxName-len(reserved.Hidden)-len(end))] + end
}

// takeable returns the two versions of a path, nil for one that is not there. The image's has this host's numbers.
func takeable(pristine, current, rel string) (x, c *listing.Entry, err error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("cannot take /etc/%s: %w: %s", rel, ErrNotTaken, fmt.Sprintf(format, args...))
	}
	switch {
	case slices.Contains(table.Files, rel) || reserved.Backups.Has(rel):
		return nil, nil, refuse("users and groups are merged by entry; use vipw, vigr or usermod")
	case reserved.Identity.Has(rel):
		return nil, nil, refuse("it tells this host from others")
	case rel == "fstab":
		return nil, nil, refuse("it says where the disks of this host are; edit it")
	case reserved.Original(rel) != "" || reserved.Notes.Has(rel):
		return nil, nil, refuse("no image has it")
	}
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if st, err := os.Lstat(filepath.Join(current, dir)); err != nil || !st.IsDir() {
			return nil, nil, refuse("/etc/%s is no directory here", dir)
		}
	}
	versions := map[string]*listing.Entry{}
	for _, side := range []string{pristine, current} {
		st, err := os.Lstat(filepath.Join(side, rel))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil && !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0 {
			return nil, nil, refuse("only files and links are; name the files in a directory one by one")
		}
		if err != nil {
			return nil, nil, err
		}
		e, ok, err := listing.ReadEntry(side, rel)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			return nil, nil, refuse("something is mounted there")
		}
		versions[side] = &e
	}
	x, c = versions[pristine], versions[current]
	if x == nil && c == nil {
		return nil, nil, refuse("neither this host nor the image has it")
	}
	if x != nil {
		ids, err := users.Numbers(pristine, current)
		if err != nil {
			return nil, nil, err
		}
		x.UID, x.GID = ids.Map(x.UID, x.GID)
		if c != nil && listing.Same(*x, *c, true, true) {
			return nil, nil, refuse("it is as in the image")
		}
	}
	return x, c, nil
}

// quoted returns a path as a shell reads it.
func quoted(name string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-@+:"
	if strings.Trim(name, plain) == "" {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
