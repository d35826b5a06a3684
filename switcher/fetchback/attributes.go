package fetchback

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxXattr is the kernel's limit in bytes for one value, and for the list of names (xattr(7)).
const maxXattr = 64 << 10

// owners translate the owners of files. The zero value keeps them.
type owners struct{ uid, gid func(uint32) uint32 }

func (o owners) user(id uint32) uint32 {
	if o.uid == nil {
		return id
	}
	return o.uid(id)
}

func (o owners) ofGroup(id uint32) uint32 {
	if o.gid == nil {
		return id
	}
	return o.gid(id)
}

// copyAttributes copies owners, mode, extended attributes and times from one open file to another, in this order:
// chown(2) clears set-id bits and capabilities.
func copyAttributes(from, to *os.File, o owners) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchown(int(to.Fd()), int(o.user(st.Uid)), int(o.ofGroup(st.Gid))); err != nil {
		return &fs.PathError{Op: "chown", Path: to.Name(), Err: err}
	}
	if err := unix.Fchmod(int(to.Fd()), st.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: to.Name(), Err: err}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	modified := unix.NsecToTimeval(unix.TimespecToNsec(st.Mtim))
	return unix.Futimes(int(to.Fd()), []unix.Timeval{modified, modified})
}

// copyXattrs copies the attributes that belong to the file. What the file system does not support is left out.
func copyXattrs(from, to *os.File) error {
	list := make([]byte, maxXattr)
	n, err := unix.Flistxattr(int(from.Fd()), list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: from.Name(), Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !slices.ContainsFunc([]string{"user.", "security.", "system.posix_acl_"}, func(prefix string) bool {
			return strings.HasPrefix(name, prefix)
		}) {
			continue
		}
		value := make([]byte, maxXattr)
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENODATA) {
			return &fs.PathError{Op: "setxattr " + name, Path: to.Name(), Err: err}
		}
	}
	return nil
}
