package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Protected are the inode flags of chattr(1) that keep a file from being changed or removed, by root, too.
const Protected = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND // the values of FS_IMMUTABLE_FL and FS_APPEND_FL

// RemoveAll removes a tree, also what is protected in it. A missing tree is no error. It removes nothing if something
// is mounted in the tree: the content of that file system is not the tree's. Errors wrap those of the operating system;
// it is unix.EBUSY for a mount.
func RemoveAll(name string) error {
	if at := mountedIn(name); at != "" {
		return fmt.Errorf("cannot remove %s: a file system is mounted at %s; unmount it first: %w", name, at,
			unix.EBUSY)
	}
	err := os.RemoveAll(name)
	if errors.Is(err, fs.ErrPermission) {
		if uerr := unprotectAll(name); uerr != nil {
			return errors.Join(err, uerr)
		}
		err = os.RemoveAll(name)
	}
	return err
}

// mountedIn returns a mount point at or below a path, "" if there is none, or if the mounts cannot be read.
func mountedIn(name string) string {
	parent, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return ""
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(parent, filepath.Base(name))))
	if err != nil || len(mounts) == 0 {
		return ""
	}
	return mounts[0].Mountpoint
}

// unprotectAll clears the flags [Protected] of everything in a tree, and of nothing that a link leads to.
func unprotectAll(name string) error {
	if st, err := os.Lstat(name); err != nil || !st.IsDir() {
		return errors.Join(err, SetFlags(name, Protected, 0))
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil // other files have no such flags
		}
		f, err := root.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return SetFlagsOf(f, Protected, 0)
	})
}

// rename gives a file or a tree another name, also if its own flags protect it. What is in a tree needs no care: only
// the name changes.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrPermission) && SetFlags(from, Protected, 0) == nil {
		err = os.Rename(from, to)
	}
	return err
}

// FlagsOf returns the inode flags of an open file or directory, as far as they are in [Protected]; none where the file
// system has no flags.
func FlagsOf(f *os.File) int {
	bits, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil { // ENOTTY, EOPNOTSUPP and others, depending on the file system
		return 0
	}
	return int(bits) & Protected
}

// SetFlags sets the inode flags of a regular file or a directory that are in mask to those in flags. It follows no
// symbolic link. Errors wrap those of the operating system: it is unix.ENOTTY or unix.EOPNOTSUPP where the file system
// has no flags.
func SetFlags(name string, mask, flags int) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return SetFlagsOf(f, mask, flags)
}

// SetFlagsOf is [SetFlags] for an open file or directory.
func SetFlagsOf(f *os.File, mask, flags int) error {
	bits, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if now := int(bits); err == nil && now&mask != flags&mask {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, now&^mask|flags&mask)
	}
	if err != nil {
		return &fs.PathError{Op: "set the flags of", Path: f.Name(), Err: err}
	}
	return nil
}
