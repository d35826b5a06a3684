// Package seed answers how what only an image has gets into the state of this host. It promises that a directory gets
// its name when it is complete and on the disk, and that nothing is followed or changed elsewhere that a user puts in
// its way.
package seed

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/switcher/copies"
)

// Missing copies the directories, with their content, that the image has at a state path and the host lacks. It returns
// those directories, relative to the state path. Existing directories are not touched: a file that is missing there may
// have been removed on purpose. skip lists paths, relative to the state path, that are not seeded. After an error there
// is no half of a copy, and what a killed run left beside the host's directories is removed.
//
// A user who owns one of the host's directories may exchange what is in it at any moment. No link is followed there,
// and what the user spoils is not seeded.
func Missing(image, host string, owners copies.Owners, skip []string) ([]string, error) {
	s := seeder{image: image, owners: owners, skip: skip}
	top, err := unix.Open(host, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot seed %s: %w", host, err)
	}
	err = s.walk(os.NewFile(uintptr(top), host), ".")
	if err == nil {
		err = s.name()
	}
	if err != nil {
		err = fmt.Errorf("cannot seed %s: %w", host, err)
	}
	for _, c := range s.made {
		if err != nil {
			err = errors.Join(err, c.remove())
		}
		c.parent.Close()
	}
	return s.seeded, err
}

// New copies a directory to a new name, which it gets when it is complete and on the disk.
func New(from, to string, owners copies.Owners) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer parent.Close()
	removeHalfCopies(parent)
	made, err := copyBeside(parent, from, owners)
	if err != nil {
		return err
	}
	defer made.parent.Close()
	made.final = filepath.Base(to)
	if err = durable.SyncFS(pathOf(parent)); err == nil {
		err = made.name()
	}
	if err != nil {
		err = errors.Join(err, made.remove())
	}
	return err
}

// seeder is one run of [Missing].
type seeder struct {
	image  string
	owners copies.Owners
	skip   []string
	seeded []string
	made   []newDir
}

// walk compares an open directory of the host, which it closes, with the image's of the same path.
func (s *seeder) walk(dir *os.File, rel string) error {
	defer dir.Close()
	removeHalfCopies(dir)
	entries, err := os.ReadDir(filepath.Join(s.image, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		below := filepath.Join(rel, e.Name())
		if !e.IsDir() || slices.Contains(s.skip, below) {
			continue
		}
		next, err := openBelow(dir, e.Name())
		switch {
		case err == nil:
			err = s.walk(next, below)
		case errors.Is(err, fs.ErrNotExist):
			err = s.copy(dir, below)
		case isOther(err): // the host has a link, a file or a mount there
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copy copies a directory of the image beside its final name.
func (s *seeder) copy(parent *os.File, rel string) error {
	c, err := copyBeside(parent, filepath.Join(s.image, rel), s.owners)
	if errors.Is(err, errSpoiled) && owned.WrittenByOthers(parent) {
		return nil
	}
	if err != nil {
		return err
	}
	c.final = filepath.Base(rel)
	s.made, s.seeded = append(s.made, c), append(s.seeded, rel)
	return nil
}

// name syncs the copies to disk before it gives them their final names: an existing directory is never seeded again.
func (s *seeder) name() error {
	synced := map[uint64]bool{} // by device: there may be others below a state path
	for _, c := range s.made {
		var st unix.Stat_t
		if err := unix.Fstat(int(c.parent.Fd()), &st); err != nil {
			return err
		}
		if !synced[st.Dev] {
			if err := durable.SyncFS(pathOf(c.parent)); err != nil {
				return err
			}
			synced[st.Dev] = true
		}
	}
	for _, c := range s.made {
		if err := c.name(); err != nil {
			return err
		}
	}
	return nil
}

// newDir is a copy of a directory under a temporary name.
type newDir struct {
	parent     *os.File
	tmp, final string
}

// errSpoiled means that somebody exchanged a directory while it was made.
var errSpoiled = errors.New("somebody exchanged it while it was made")

// halfCopy begins the temporary name of a copy, beside its final place.
const halfCopy = ".updatectl-seed-"

// copyBeside copies a directory into another one, under a temporary name. Until the copy is complete, nobody else can
// look into it. After an error, there is no copy.
func copyBeside(parent *os.File, from string, owners copies.Owners) (c newDir, err error) {
	own, err := unix.FcntlInt(parent.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return c, err
	}
	c = newDir{parent: os.NewFile(uintptr(own), parent.Name()), tmp: halfCopy + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove())
			c.parent.Close()
		}
	}()
	if err := unix.Mkdirat(own, c.tmp, 0o700); err != nil {
		return c, &fs.PathError{Op: "mkdir", Path: filepath.Join(parent.Name(), c.tmp), Err: err}
	}
	handle, err := openBelow(c.parent, c.tmp)
	if errors.Is(err, fs.ErrNotExist) || isOther(err) {
		err = errSpoiled
	}
	if err != nil {
		return c, err
	}
	defer handle.Close()
	dir, err := os.Open(pathOf(handle))
	if err != nil {
		return c, err
	}
	defer dir.Close()
	if err := isFresh(dir); err != nil {
		return c, err
	}
	return c, copies.Into(from, dir, owners)
}

// isFresh returns an error unless an open directory is one that this process has just made, and takes the parent's
// default ACL from it.
func isFresh(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if names, _ := dir.Readdirnames(1); len(names) > 0 || int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o700 {
		return errSpoiled
	}
	for _, acl := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		err := unix.Fremovexattr(int(dir.Fd()), acl)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}

// name gives the copy its final name. If somebody has made something of that name meanwhile, that stays; if somebody
// has taken the copy away, there is nothing to name.
func (c newDir) name() error {
	fd := int(c.parent.Fd())
	err := unix.Renameat2(fd, c.tmp, fd, c.final, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // NFS; it replaces no more than an empty directory
		err = unix.Renameat(fd, c.tmp, fd, c.final)
	}
	for _, meanwhile := range []error{unix.EEXIST, unix.ENOTEMPTY, unix.ENOTDIR} {
		if errors.Is(err, meanwhile) {
			return c.remove()
		}
	}
	if errors.Is(err, unix.ENOENT) && owned.WrittenByOthers(c.parent) {
		return nil
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: c.tmp, New: filepath.Join(c.parent.Name(), c.final), Err: err}
	}
	return nil
}

func (c newDir) remove() error { return removeIn(c.parent, c.tmp) }

// removeIn removes a tree in an open directory.
func removeIn(dir *os.File, name string) error {
	root, err := os.OpenRoot(pathOf(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}

// openBelow returns a handle of a directory in another one. No link is followed, and a mount is entered only where
// nobody but root can have made it. The handle is not for reading: on a network file system, root may not be allowed
// to.
func openBelow(dir *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	if owned.WrittenByOthers(dir) {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	fd, err := unix.Openat2(int(dir.Fd()), name, &how)
	full := filepath.Join(dir.Name(), name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: full, Err: err}
	}
	return os.NewFile(uintptr(fd), full), nil
}

// isOther reports whether an error of [openBelow] means that there is no directory to enter.
func isOther(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV)
}

// removeHalfCopies removes what a killed run left in a directory. What cannot be removed costs space only, and keeps
// no host from its way. In a directory of others, names of ours may be theirs, and as many as they like.
func removeHalfCopies(dir *os.File) {
	if owned.WrittenByOthers(dir) {
		return
	}
	entries, _ := os.ReadDir(pathOf(dir))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), halfCopy) {
			_ = removeIn(dir, e.Name())
		}
	}
}

// pathOf returns a path to the file of a handle. It is valid in this process, while the handle is open.
func pathOf(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
