package listing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/owned"
)

// ErrChanged means that a file is not any more what was listed.
var ErrChanged = errors.New("it was changed while it was copied")

// Source is a directory that was listed, to copy from.
type Source struct{ dir *os.File }

// OpenSource opens a directory, which may be given as /proc/self/fd/N.
func OpenSource(dir string) (Source, error) {
	f, err := openDir(dir)
	return Source{f}, err
}

// Below returns a directory below a source. No link leads to it, and no mount is crossed.
func (s Source) Below(name string) (Source, error) {
	f, err := openAt(s.dir, name, strict)
	if err != nil {
		return Source{}, err
	}
	if st, err := stat(f); err != nil || uint32(st.Mode)&unix.S_IFMT != unix.S_IFDIR {
		f.Close()
		return Source{}, errors.Join(err, &fs.PathError{Op: "open", Path: f.Name(), Err: unix.ENOTDIR})
	}
	return Source{f}, nil
}

// Path returns a path to the directory, which is valid while it is open.
func (s Source) Path() string { return procPath(s.dir) }

// Close closes the directory.
func (s Source) Close() {
	if s.dir != nil {
		s.dir.Close()
	}
}

// Make makes a file, link or device with everything that the entry says about it at to, where there must be nothing.
// With a nil content, that of a file is copied from a path of its source; the error is an [ErrChanged] if that has not
// the sum of the entry, which may be "" for any. What the file system does not support is added to refused. After an
// error, nothing is at to.
func (e Entry) Make(content []byte, from Source, name, to string, refused map[string]bool) error {
	made, err := e.create(content, from, name, to)
	if made == nil {
		return err
	}
	if err == nil {
		err = e.Apply(made, refused)
	}
	made.Close()
	if err != nil {
		err = errors.Join(err, os.Remove(to))
	}
	return err
}

// create makes a file, link or device without its attributes, and returns it.
func (e Entry) create(content []byte, from Source, name, to string) (*os.File, error) {
	var err error
	switch e.Kind {
	case File:
		return e.createFile(content, from, name, to)
	case Link:
		err = os.Symlink(e.Target, to)
	case Device:
		if err = unix.Mknod(to, e.Mode&^0o7777, int(e.Rdev)); err != nil {
			err = &fs.PathError{Op: "mknod", Path: to, Err: err}
		}
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(to, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: to, Err: err}
	}
	made := os.NewFile(uintptr(fd), to)
	// In a directory of others, somebody may have put something else there.
	if st, err := stat(made); err != nil || e.Kind == Link != (uint32(st.Mode)&unix.S_IFMT == unix.S_IFLNK) ||
		e.Kind == Device && unix.Mkdev(st.Rdev_major, st.Rdev_minor) != e.Rdev {
		made.Close()
		return nil, errors.Join(err, &fs.PathError{Op: "make", Path: to, Err: ErrChanged})
	}
	return made, nil
}

func (e Entry) createFile(content []byte, from Source, name, to string) (*os.File, error) {
	made, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if content != nil {
		_, err = io.Copy(made, bytes.NewReader(content))
		return made, err
	}
	source, err := openFile(from.dir, name, strict)
	if err == nil {
		defer source.Close()
		most, sum := int64(math.MaxInt64), ""
		if e.OthersChange() { // meanwhile, they may have made it larger than what is listed
			most = maxForeignFile
		}
		if sum, _, err = transfer(source, made, most); err == nil && sum != e.Sum && e.Sum != "" {
			err = &fs.PathError{Op: "copy", Path: source.Name(), Err: ErrChanged}
		}
	}
	if isChange(err) {
		err = fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return made, err
}

// isChange reports whether an error means that a listed file is gone, or is none any more.
func isChange(err error) bool {
	changes := []error{fs.ErrNotExist, unix.ELOOP, unix.ENOTDIR, unix.EXDEV, unix.EAGAIN, errBound}
	return slices.ContainsFunc(changes, func(e error) bool { return errors.Is(err, e) })
}

// mayLack reports whether the copy may do without an attribute that could not be set, because of this error. A tmpfs
// does not support all of them, and a container may not set labels. Others than root can set more attributes than the
// file system of the copy can hold, which must not stop the merge.
func (e Entry) mayLack(attr string, err error) bool {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return true
	}
	tooLarge := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE)
	theirs := strings.HasPrefix(attr, "user.") || strings.HasPrefix(attr, "system.posix_acl_")
	return tooLarge && theirs && e.OthersChange()
}

// ofGroup returns the rights that an ACL gives to the group of the file. In the kernel's form, it is a version of four
// bytes and entries of eight, each with a tag, rights and a number.
func ofGroup(acl string) uint32 {
	const group, mask = 0x04, 0x10 // tags
	rights, most := uint16(0), uint16(7)
	for b := []byte(acl[min(4, len(acl)):]); len(b) >= 8; b = b[8:] {
		switch has := binary.LittleEndian.Uint16(b[2:]) & 7; binary.LittleEndian.Uint16(b) {
		case group:
			rights = has
		case mask:
			most = has
		}
	}
	return uint32(rights & most)
}

// Apply sets owner, mode, extended attributes, time and flags of an open file, in this order: chown(2) clears set-id
// bits and capabilities, and flags protect the rest. What the file system does not support is added to refused.
func (e Entry) Apply(f *os.File, refused map[string]bool) error {
	full := procPath(f)
	fail := func(op string, err error) error { return &fs.PathError{Op: op, Path: f.Name(), Err: err} }
	if err := unix.Fchownat(int(f.Fd()), "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH); err != nil {
		return fail("chown", err)
	}
	if e.Kind != Link {
		if err := unix.Chmod(full, e.Mode&0o7777); err != nil {
			return fail("chmod", err)
		}
	}
	for _, attr := range slices.Sorted(maps.Keys(e.Xattrs)) {
		err := unix.Setxattr(full, attr, []byte(e.Xattrs[attr]), 0)
		if err == nil {
			continue
		}
		if !e.mayLack(attr, err) {
			return fail("setxattr "+attr, err)
		}
		refused[attr] = true
		if attr == owned.ACL { // without it, the group would have the rights of all whom it names
			if err := unix.Chmod(full, e.Mode&0o7707|ofGroup(e.Xattrs[attr])<<3); err != nil {
				return fail("chmod", err)
			}
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(e.MTime.UnixNano()), unix.NsecToTimespec(e.MTime.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, full, times, 0); err != nil {
		return fail("utimensat", err)
	}
	if e.Flags == 0 {
		return nil
	}
	open, err := reopen(f)
	if err != nil {
		return err
	}
	defer open.Close()
	err = durable.SetFlagsOf(open, durable.Protected, e.Flags)
	for _, unsupported := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, unsupported) {
			refused["immutable or append-only"] = true
			return nil
		}
	}
	return err
}
