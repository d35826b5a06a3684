// Package listing reads what is at each path of an /etc, with all that a copy of it gets: content, owner, mode,
// extended attributes, flags and time. It promises to follow no symbolic link and to enter no mount.
package listing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// Kind is the type of a file. Sockets and FIFOs belong to running programs and are never listed.
type Kind byte

const (
	File   Kind = 'f'
	Dir    Kind = 'd'
	Link   Kind = 'l'
	Device Kind = 'n'
)

// Entry is everything about a path that the decision compares and that a copy gets.
type Entry struct {
	Kind     Kind
	Mode     uint32 // permission bits; for a device with its type
	UID, GID uint32
	Sum      string // of a file's content
	Target   string // of a symbolic link
	Rdev     uint64 // of a device
	Xattrs   map[string]string
	Flags    int // of durable.Protected, for a file or a directory
	MTime    time.Time
}

// Tree is a tree by path relative to /etc; "." is /etc itself.
type Tree map[string]Entry

// Label is not compared: policies differ between images, and the label comes with the content that wins.
const Label = "security.selinux"

// Same reports whether two sides have the same at a path. Times are not compared.
func Same(a, b Entry, inA, inB bool) bool {
	if !inA || !inB {
		return inA == inB
	}
	if a.Kind != b.Kind || a.UID != b.UID || a.GID != b.GID || a.Sum != b.Sum || a.Target != b.Target || a.Rdev != b.Rdev {
		return false
	}
	if a.Flags != b.Flags { // who protects a file by chattr(1) does not want it changed
		return false
	}
	if a.Kind != Link && a.Mode != b.Mode { // the mode of a symbolic link means nothing
		return false
	}
	unlabelled := func(x map[string]string) map[string]string {
		x = maps.Clone(x)
		delete(x, Label)
		return x
	}
	return maps.Equal(unlabelled(a.Xattrs), unlabelled(b.Xattrs))
}

// ErrTooLarge is returned for a user database or an fstab that is larger than any real one.
var ErrTooLarge = errors.New("larger than such a file can be")

// ReadText returns the content of a file that is merged by content, nil when there is none or it is not an ordinary
// file. A file that is mounted there is read as well: that is what the host uses.
func ReadText(dir, name string, limit int64) ([]byte, error) {
	f, err := openFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", f.Name(), err)
	}
	return append([]byte{}, content...), nil
}

// openFile opens a file for reading. It follows no symbolic link, and does not wait if the path has become a FIFO
// meanwhile.
func openFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// Directory is what is in an /etc.
type Directory struct {
	Tree   Tree
	Mounts []string // mount points, which are not crossed
	Notes  []string // what is not listed
}

// Read reads a directory, which may be given as /proc/self/fd/N.
func Read(dir string) (Directory, error) {
	d := Directory{Tree: Tree{}}
	err := d.list(dir, ".")
	return d, err
}

// ReadEntry returns what is at a path below a directory, and false where something is mounted, or a socket or FIFO.
func ReadEntry(dir, name string) (Entry, bool, error) {
	d := Directory{Tree: Tree{}}
	err := d.list(dir, name)
	e, ok := d.Tree[name]
	return e, ok, err
}

// list adds a path, and what is below it, to the tree.
func (d *Directory) list(dir, rel string) error {
	full, flags := filepath.Join(dir, rel), unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT
	if rel == "." {
		flags = 0 // the directory itself may be given as a link
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, full, flags, unix.STATX_BASIC_STATS, &st); err != nil {
		return &fs.PathError{Op: "statx", Path: full, Err: err}
	}
	// The mount root flag decides, not st_dev: an overlay has several device numbers, and a bind mount from the same disk
	// has the same one.
	if rel != "." && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		d.Mounts = append(d.Mounts, rel)
		return nil
	}
	e := Entry{
		Mode: uint32(st.Mode) & 07777, UID: st.Uid, GID: st.Gid,
		MTime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
	}
	var err error
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind = File
		e.Sum, err = hashFile(full)
	case unix.S_IFDIR:
		e.Kind = Dir
	case unix.S_IFLNK:
		e.Kind = Link
		e.Target, err = os.Readlink(full)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind, e.Mode = Device, uint32(st.Mode)
		e.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	default:
		d.Notes = append(d.Notes, rel+": a socket or FIFO; not carried over")
		return nil
	}
	if err != nil {
		return err
	}
	if err = e.ReadMarks(full, rel == "."); err != nil {
		return err
	}
	d.Tree[rel] = e
	if e.Kind != Dir {
		return nil
	}
	return d.listBelow(dir, rel)
}

// listBelow lists what is in a directory. A file that vanishes meanwhile, on a running host, counts as missing.
func (d *Directory) listBelow(dir, rel string) error {
	names, err := os.ReadDir(filepath.Join(dir, rel))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := d.list(dir, path.Join(rel, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ReadMarks adds extended attributes and flags. A protected /etc itself could not be renamed, so top has no flags.
func (e *Entry) ReadMarks(full string, top bool) (err error) {
	if !top && (e.Kind == File || e.Kind == Dir) { // statx(2) calls every file of an EROFS image immutable
		if e.Flags, err = durable.Flags(full); err != nil {
			return err
		}
	}
	e.Xattrs, err = readXattrs(full, !top)
	return err
}

func hashFile(name string) (string, error) {
	f, err := openFile(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
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

// readXattrs returns the extended attributes that are carried over, nil where the file system has none.
func readXattrs(name string, nofollow bool) (map[string]string, error) {
	list, get := unix.Listxattr, unix.Getxattr
	if nofollow {
		list, get = unix.Llistxattr, unix.Lgetxattr
	}
	names, err := readSized(func(b []byte) (int, error) { return list(name, b) })
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, &fs.PathError{Op: "listxattr", Path: name, Err: err}
	}
	var out map[string]string
	for _, attr := range strings.Split(string(names), "\x00") {
		if !carriedXattr(attr) {
			continue
		}
		value, err := readSized(func(b []byte) (int, error) { return get(name, attr, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr " + attr, Path: name, Err: err}
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

// readSized calls read with a buffer that is large enough.
func readSized(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 1024)
	n, err := read(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxXattr)
		n, err = read(buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// MapOwners returns the tree with other owners.
func (l Tree) MapOwners(ids func(uid, gid uint32) (uint32, uint32)) Tree {
	out := Tree{}
	for name, e := range l {
		e.UID, e.GID = ids(e.UID, e.GID)
		out[name] = e
	}
	return out
}

// Has reports whether the tree has a path.
func (l Tree) Has(name string) bool { _, ok := l[name]; return ok }

// EveryPath returns the paths that any tree has.
func EveryPath(sides ...Tree) map[string]bool {
	names := map[string]bool{}
	for _, l := range sides {
		for name := range l {
			names[name] = true
		}
	}
	return names
}

// Content is what a file, link or device is, without what is said about it.
type Content struct {
	Sum, Target string
	Rdev        uint64
}

// Content returns what a file, link or device is.
func (e Entry) Content() Content { return Content{e.Sum, e.Target, e.Rdev} }

// ReadStart returns the first bytes of an ordinary file.
func ReadStart(dir, name string, limit int64) ([]byte, error) {
	f, err := openFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// Create makes a file, link or device at to, without its attributes. With a nil content, that of a file is copied from
// a path.
func (e Entry) Create(content []byte, from, to string) error {
	switch e.Kind {
	case Link:
		return os.Symlink(e.Target, to)
	case Device:
		if err := unix.Mknod(to, e.Mode, int(e.Rdev)); err != nil {
			return &fs.PathError{Op: "mknod", Path: to, Err: err}
		}
		return nil
	}
	var source io.Reader = bytes.NewReader(content)
	if content == nil {
		f, err := openFile(from)
		if err != nil {
			return err
		}
		defer f.Close()
		source = f
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, source)
	return errors.Join(err, f.Close())
}

// Apply sets owner, mode, extended attributes, time and flags, in this order: chown(2) clears set-id bits and
// capabilities, and flags protect the rest. What the file system does not support is added to refused.
func (e Entry) Apply(full string, refused map[string]bool) error {
	if err := os.Lchown(full, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	if e.Kind != Link {
		if err := unix.Chmod(full, e.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: full, Err: err}
		}
	}
	for _, attr := range slices.Sorted(maps.Keys(e.Xattrs)) {
		err := unix.Lsetxattr(full, attr, []byte(e.Xattrs[attr]), 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			refused[attr] = true // tmpfs, or a container that may not set labels
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "setxattr " + attr, Path: full, Err: err}
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(e.MTime.UnixNano()), unix.NsecToTimespec(e.MTime.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, full, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: full, Err: err}
	}
	if e.Flags == 0 {
		return nil
	}
	err := durable.SetFlags(full, durable.Protected, e.Flags)
	for _, unsupported := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, unsupported) {
			refused["immutable or append-only"] = true
			return nil
		}
	}
	return err
}

// HideMounted makes unchanged, as it is in a base, what mounts hide in a tree.
func HideMounted(mounts []string, base, tree Tree) {
	for _, m := range mounts {
		for name, e := range base {
			if paths.IsUnder(name, m) {
				tree[name] = e
			}
		}
	}
}
