package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckOwners returns an ErrState for each path of a tree that others than root can make lead elsewhere: it is below a
// directory of theirs, or behind a link of theirs. What is at the path may be anybody's.
func CheckOwners(root string, paths []string) error {
	var errs []error
	for _, p := range paths {
		why, err := ledByOthers(root, p)
		if err == nil && why != "" {
			err = fmt.Errorf("%s %w: %s", p, ErrState, why)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// maxLinks is how many links the kernel follows in one path.
const maxLinks = 40

// ledByOthers returns why others than root can make a path of a tree lead elsewhere, and what to do about it; "" if
// they cannot. What does not exist leads nowhere. Each directory is looked at before what is in it, so nobody can
// change what was found.
func ledByOthers(root, p string) (string, error) {
	at, rest := "/", strings.Split(strings.Trim(p, "/"), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		dir, err := os.Lstat(filepath.Join(root, at))
		if err != nil {
			return "", ignoreAbsent(err)
		}
		st, err := os.Lstat(filepath.Join(root, next))
		if absent := err != nil && ignoreAbsent(err) == nil; err != nil && !absent {
			return "", err
		}
		if why := whoseDir(at, dir, st); why != "" || err != nil {
			return why, nil
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if uid := owner(st).Uid; uid != 0 {
			return fmt.Sprintf("%s is a link of user %d, who can make it lead anywhere; name the directory that it leads to",
				next, uid), nil
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: p, Err: unix.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
	}
	return "", nil
}

// whoseDir returns why others than root can exchange something in a directory, nil for what is missing there, and what
// to do about it; "" if they cannot.
func whoseDir(name string, dir, in fs.FileInfo) string {
	sticky := dir.Mode()&fs.ModeSticky != 0 && in != nil && owner(in).Uid == 0 // only its owner can exchange it
	switch {
	case !dir.IsDir():
		return ""
	case owner(dir).Uid != 0:
		return fmt.Sprintf("%s, which it is in, belongs to user %d, who can put a link in its place; name a directory that "+
			"only root can write in, such as one below /srv, or have root own %[1]s", name, owner(dir).Uid)
	case dir.Mode()&unix.S_IWOTH != 0 && !sticky:
		return fmt.Sprintf("everybody can write in %s, which it is in, and put a link in its place; name a directory that "+
			"only root can write in, such as one below /srv", name)
	}
	return ""
}

func owner(st fs.FileInfo) *syscall.Stat_t { return st.Sys().(*syscall.Stat_t) }

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}
