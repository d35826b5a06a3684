// Package copies copies files and directories with everything that belongs to them: modes, times, extended attributes,
// and owners by the numbers of this host. It follows no links in what it copies.
package copies

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Owners maps the uids and gids of an image to those of the same names on the host. A number that is missing stays as
// it is.
type Owners struct{ UID, GID map[uint32]uint32 }

func (o Owners) uid(id uint32) uint32 { return mappedID(o.UID, id) }

func (o Owners) gid(id uint32) uint32 { return mappedID(o.GID, id) }

func mappedID(m map[uint32]uint32, id uint32) uint32 {
	if to, ok := m[id]; ok {
		return to
	}
	return id
}

// Into copies a directory into an open one, which must be empty and closed to others: it gets its attributes last.
// Sockets, pipes and devices are left out.
func Into(from string, dir *os.File, owners Owners) error {
	to := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil || rel == "." {
			return err
		}
		return copyEntry(p, filepath.Join(to, rel), d)
	})
	if err != nil {
		return err
	}
	return treeAttributes(from, to, owners)
}

func copyEntry(from, to string, d fs.DirEntry) error {
	switch d.Type() {
	case fs.ModeDir:
		return os.Mkdir(to, 0o700)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case 0:
		return File(from, to, 0o600)
	}
	return nil // sockets, pipes and devices of an image hold no state
}

// treeAttributes copies the attributes of a tree. It must run when the content is complete, and goes from the
// leaves up, so that directories keep their times.
func treeAttributes(from, to string, owners Owners) error {
	var paths []string
	err := filepath.WalkDir(to+"/.", func(p string, _ fs.DirEntry, err error) error { // the directory, not the link to it
		paths = append(paths, p)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(paths) {
		rel, err := filepath.Rel(to, p)
		if err != nil {
			return err
		}
		source := from
		if rel != "." {
			source = filepath.Join(from, rel)
		}
		if err := Attributes(source, p, owners); err != nil {
			return err
		}
	}
	return nil
}

// File copies the content of a file to a new one with that mode.
func File(from, to string, mode fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// Attributes copies the mode, times and extended attributes of a file, and its owner, translated. The owner comes
// first, because chown(2) clears file capabilities and set-user-id bits.
func Attributes(from, to string, owners Owners) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("cannot read the attributes of %s: %w", from, err)
	}
	if err := unix.Lchown(to, int(owners.uid(st.Uid)), int(owners.gid(st.Gid))); err != nil {
		return fmt.Errorf("cannot set the owner of %s: %w", to, err)
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return fmt.Errorf("cannot set the mode of %s: %w", to, err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("cannot set the time of %s: %w", to, err)
	}
	return nil
}

// copyXattrs copies extended attributes. One that the file system does not support, or that may not be set there, is
// left out: tmpfs has no user attributes before Linux 6.6, and no host stays in its old root for that.
func copyXattrs(from, to string) error {
	const maxXattr = 64 << 10 // bytes; XATTR_LIST_MAX and XATTR_SIZE_MAX
	list := make([]byte, maxXattr)
	n, err := unix.Llistxattr(from, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot list the extended attributes of %s: %w", from, err)
	}
	value := make([]byte, maxXattr)
	for _, name := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:size], 0)
		}
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			continue // the merge of /etc leaves such an attribute out, too
		}
		if err != nil {
			return fmt.Errorf("cannot copy %s of %s: %w", name, from, err)
		}
	}
	return nil
}
