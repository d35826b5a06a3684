// Package owned answers who besides root can change a file, or exchange it on the way there. What root obeys, such as
// configuration, keys and programs, must be changeable by root alone; where users may write, root works with care.
package owned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrOthers means that somebody else than this user and root can change a file, or exchange it.
var ErrOthers = errors.New("others can change it")

// ACL is the extended attribute with the ACL of a file.
const ACL = "system.posix_acl_access"

// Writer is who besides root can write in a file or a directory.
type Writer byte

const (
	Nobody Writer = iota
	User          // who owns it
	Group         // the members of its group, or whom its ACL names
	Everybody
)

// WriterOf returns who besides root can write in a file or directory with this mode, owner and group. acl is whether it
// has an ACL, which grants no more than the bits of the group. Only the owner of a link can change it: its mode means
// nothing, and is given as 0.
func WriterOf(mode, uid, gid uint32, acl bool) Writer {
	switch {
	case uid != 0:
		return User
	case mode&unix.S_IWOTH != 0:
		return Everybody
	case mode&unix.S_IWGRP != 0 && (gid != 0 || acl):
		return Group
	}
	return Nobody
}

// writerOf returns who besides root and this user can write in what is at a path. acl is whether an ACL may be the
// reason.
func writerOf(path string, st fs.FileInfo) (w Writer, acl bool) {
	mode := uint32(st.Mode().Perm())
	if !st.IsDir() && !st.Mode().IsRegular() {
		mode = 0
	}
	acl = mode&unix.S_IWGRP != 0 && hasACL(path)
	return WriterOf(mode, otherOwner(st), st.Sys().(*syscall.Stat_t).Gid, acl), acl
}

// otherOwner returns the owner of a file, 0 for root and this user.
func otherOwner(st fs.FileInfo) uint32 {
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != uint32(os.Geteuid()) {
		return uid
	}
	return 0
}

// hasACL reports whether a file has an ACL, or may have one.
func hasACL(path string) bool {
	_, err := unix.Lgetxattr(path, ACL, nil)
	return !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP)
}

// WrittenByOthers reports whether others than root and this user can write in an open directory, or may be able to.
func WrittenByOthers(dir *os.File) bool {
	st, err := dir.Stat()
	if err != nil {
		return true
	}
	w, _ := writerOf(fmt.Sprintf("/proc/self/fd/%d/.", dir.Fd()), st) // with the dot, it is the directory, not the link
	return w != Nobody
}

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
	top, err := os.Lstat("/")
	if err == nil {
		err = checkOne("/", top)
	}
	if err != nil {
		return err
	}
	return follow("/", path, func(s step) error {
		if s.file == nil {
			return nil
		}
		return checkOne(s.path, s.file)
	})
}

// checkOne checks a file or a directory itself.
func checkOne(path string, st fs.FileInfo) error {
	switch w, acl := writerOf(path, st); {
	case w == User:
		return fmt.Errorf("%w: %s belongs to user %d; run: chown root %s", ErrOthers, path, otherOwner(st), path)
	case w == Nobody, st.IsDir() && st.Mode()&fs.ModeSticky != 0: // as in /tmp, others can only add files
		return nil
	case acl:
		return fmt.Errorf("%w: %s has an ACL and the mode %04o; run: chmod go-w %s", ErrOthers, path, st.Mode().Perm(), path)
	default:
		return fmt.Errorf("%w: %s has the mode %04o; run: chmod go-w %s", ErrOthers, path, st.Mode().Perm(), path)
	}
}
