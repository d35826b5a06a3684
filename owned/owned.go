// Package owned answers who can change a file. What root obeys, such as configuration, keys and programs, must be
// changeable by root alone.
package owned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrOthers means that somebody else than this user and root can change a file, or exchange it.
var ErrOthers = errors.New("others can change it")

// maxLinks is how many links the kernel follows on the way to a file.
const maxLinks = 40

// Check returns an [ErrOthers] if somebody other than root and this user can change a file, or a directory or link on
// the way to it. A path that does not exist is an fs.ErrNotExist.
func Check(path string) error {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return err
		}
		path = here + "/" + path // not cleaned: ".." means something else behind a link
	}
	at, rest, links := "/", split(path), 0
	if err := checkOne(at); err != nil {
		return err
	}
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		if err := checkOne(next); err != nil {
			return err
		}
		target, err := os.Readlink(next)
		if err != nil { // no link
			at = next
			continue
		}
		if links++; links > maxLinks {
			return &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = slices.Concat(split(target), rest)
	}
	return nil
}

// split returns the components of a path.
func split(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// checkOne checks a file or a directory itself.
func checkOne(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	mode := st.Mode()
	shared := mode.Perm()&0o022 != 0 && (mode.IsRegular() || mode.IsDir())
	switch {
	case sys.Uid != 0 && sys.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%w: %s belongs to user %d; run: chown root %s", ErrOthers, path, sys.Uid, path)
	case mode.IsDir() && mode&fs.ModeSticky != 0: // as in /tmp, others can only add files
	case shared && mode.Perm()&0o002 == 0 && sys.Gid == 0: // the group root
	case shared:
		return fmt.Errorf("%w: %s has the mode %04o; run: chmod go-w %s", ErrOthers, path, mode.Perm(), path)
	}
	return nil
}
