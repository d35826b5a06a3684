package listing

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
)

// The ways to open something below a directory. None leads out of it.
const (
	beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
	strict  = beneath | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV
)

// openDir opens a directory, which may be given as /proc/self/fd/N.
func openDir(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// openAt opens what is at a path below a directory, for questions about it only: no device is opened, no FIFO waits,
// and a link is opened itself. The error is an unix.EXDEV for a mount and for what leads out of the directory.
func openAt(dir *os.File, name string, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) { // something was renamed meanwhile
			continue
		}
		full := path.Join(dir.Name(), name)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: full, Err: err}
		}
		return os.NewFile(uintptr(fd), full), nil
	}
}

// procPath returns a path that leads to the file of a descriptor, and to no other.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// reopen opens the file or directory of a descriptor for reading.
func reopen(f *os.File) (*os.File, error) {
	fd, err := unix.Open(procPath(f), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// openFile opens the regular file at a path below a directory for reading. The error is an unix.ELOOP for what is none.
func openFile(dir *os.File, name string, resolve uint64) (*os.File, error) {
	f, err := openAt(dir, name, resolve)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := stat(f)
	if err == nil && uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: unix.ELOOP}
	}
	if err != nil {
		return nil, err
	}
	return reopen(f)
}

func stat(f *os.File) (st unix.Statx_t, err error) {
	const flags = unix.AT_EMPTY_PATH | unix.AT_NO_AUTOMOUNT
	if err = unix.Statx(int(f.Fd()), "", flags, unix.STATX_BASIC_STATS, &st); err != nil {
		err = &fs.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return st, err
}

// readLink returns the target of the link of a descriptor.
func readLink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: f.Name(), Err: err}
	}
	return string(buf[:n]), nil
}

// readEntry returns everything about the file of a descriptor but its content, and false for a socket or a FIFO. open
// is the same file, if it is a regular one or a directory; the caller closes it. With more than mostAttrs bytes of
// extended attributes, the error is an errBound.
func readEntry(f *os.File, mostAttrs int64) (e Entry, open *os.File, ok bool, err error) {
	st, err := stat(f)
	if err != nil {
		return e, nil, false, err
	}
	e = Entry{
		Mode: uint32(st.Mode) & 07777, UID: st.Uid, GID: st.Gid,
		MTime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind = File
	case unix.S_IFDIR:
		e.Kind = Dir
	case unix.S_IFLNK:
		e.Kind = Link
		e.Target, err = readLink(f)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind, e.Mode = Device, uint32(st.Mode)
		e.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	default:
		return e, nil, false, nil
	}
	if err == nil && (e.Kind == File || e.Kind == Dir) { // statx(2) calls every file of an EROFS image immutable
		if open, err = reopen(f); err == nil {
			e.Flags = durable.FlagsOf(open)
		}
	}
	if err == nil {
		e.Xattrs, err = readXattrs(f, mostAttrs)
	}
	if err != nil && open != nil {
		open.Close()
		open = nil
	}
	return e, open, true, err
}

// carriedXattr reports whether an extended attribute belongs to the file. Others describe the file system: btrfs
// properties, NFS ACLs, marks of overlayfs.
func carriedXattr(name string) bool {
	if strings.HasPrefix(name, "trusted.overlay.") {
		return false
	}
	return slices.ContainsFunc([]string{"user.", "security.", "trusted.", "system.posix_acl_"}, func(p string) bool {
		return strings.HasPrefix(name, p)
	})
}

// readXattrs returns the extended attributes that are carried over, nil where the file system has none. With more than
// most bytes of them, or more names than can be read, the error is an errBound.
func readXattrs(f *os.File, most int64) (map[string]string, error) {
	names, err := readSized(func(b []byte) (int, error) { return unix.Listxattr(procPath(f), b) })
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, &fs.PathError{Op: "listxattr", Path: f.Name(), Err: err}
	}
	var out map[string]string
	total := int64(0)
	for _, attr := range strings.Split(string(names), "\x00") {
		if !carriedXattr(attr) {
			continue
		}
		value, err := readSized(func(b []byte) (int, error) { return unix.Getxattr(procPath(f), attr, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr " + attr, Path: f.Name(), Err: err}
		}
		if total += int64(len(attr) + len(value)); total > most {
			return nil, &fs.PathError{Op: "listxattr", Path: f.Name(), Err: errBound}
		}
		if out == nil {
			out = map[string]string{}
		}
		out[attr] = string(value)
	}
	return out, nil
}

// maxXattr is the kernel's limit in bytes for one value, and for the list of names (xattr(7)).
const maxXattr = 64 << 10

// readSized calls read with a buffer that is large enough. The error is an errBound if no buffer can be.
func readSized(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 1024)
	n, err := read(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxXattr)
		n, err = read(buf)
	}
	if errors.Is(err, unix.E2BIG) { // a file system may hold more than can be read
		err = errBound
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}
