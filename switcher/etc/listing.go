package etc

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
)

// kind is the type of a file. Sockets and FIFOs belong to running programs and are never listed.
type kind byte

const (
	kindFile   kind = 'f'
	kindDir    kind = 'd'
	kindLink   kind = 'l'
	kindDevice kind = 'n'
)

// entry is everything about a path that the decision compares and that a copy gets.
type entry struct {
	kind     kind
	mode     uint32 // permission bits; for a device with its type
	uid, gid uint32
	sum      string // of a file's content
	target   string // of a symbolic link
	rdev     uint64 // of a device
	xattrs   map[string]string
	flags    int // of durable.Protected, for a file or a directory
	mtime    time.Time
}

// listing is a tree by path relative to /etc; "." is /etc itself.
type listing map[string]entry

// labelXattr is not compared: policies differ between images, and the label comes with the content that wins.
const labelXattr = "security.selinux"

// same reports whether two sides have the same at a path. Times are not compared.
func same(a, b entry, inA, inB bool) bool {
	if !inA || !inB {
		return inA == inB
	}
	if a.kind != b.kind || a.uid != b.uid || a.gid != b.gid || a.sum != b.sum || a.target != b.target || a.rdev != b.rdev {
		return false
	}
	if a.flags != b.flags { // who protects a file by chattr(1) does not want it changed
		return false
	}
	if a.kind != kindLink && a.mode != b.mode { // the mode of a symbolic link means nothing
		return false
	}
	unlabelled := func(x map[string]string) map[string]string {
		x = maps.Clone(x)
		delete(x, labelXattr)
		return x
	}
	return maps.Equal(unlabelled(a.xattrs), unlabelled(b.xattrs))
}

// ErrTooLarge is returned for a user database or an fstab that is larger than any real one.
var ErrTooLarge = errors.New("larger than such a file can be")

// readText returns the content of a file that is merged by content, nil when there is none or it is not an ordinary
// file. A file that is mounted there is read as well: that is what the host uses.
func readText(dir, name string, limit int64) ([]byte, error) {
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

// directory is what is in an /etc.
type directory struct {
	tree   listing
	mounts []string // mount points, which are not crossed
	notes  []string // what is not listed
}

// readDirectory reads a directory, which may be given as /proc/self/fd/N.
func readDirectory(dir string) (directory, error) {
	d := directory{tree: listing{}}
	err := d.list(dir, ".")
	return d, err
}

// readEntry returns what is at a path below a directory, and false where something is mounted, or a socket or FIFO.
func readEntry(dir, name string) (entry, bool, error) {
	d := directory{tree: listing{}}
	err := d.list(dir, name)
	e, ok := d.tree[name]
	return e, ok, err
}

// list adds a path, and what is below it, to the tree.
func (d *directory) list(dir, rel string) error {
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
		d.mounts = append(d.mounts, rel)
		return nil
	}
	e := entry{
		mode: uint32(st.Mode) & 07777, uid: st.Uid, gid: st.Gid,
		mtime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
	}
	var err error
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		e.kind = kindFile
		e.sum, err = hashFile(full)
	case unix.S_IFDIR:
		e.kind = kindDir
	case unix.S_IFLNK:
		e.kind = kindLink
		e.target, err = os.Readlink(full)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.kind, e.mode = kindDevice, uint32(st.Mode)
		e.rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	default:
		d.notes = append(d.notes, rel+": a socket or FIFO; not carried over")
		return nil
	}
	if err != nil {
		return err
	}
	if err = e.readMarks(full, rel == "."); err != nil {
		return err
	}
	d.tree[rel] = e
	if e.kind != kindDir {
		return nil
	}
	return d.listBelow(dir, rel)
}

// listBelow lists what is in a directory. A file that vanishes meanwhile, on a running host, counts as missing.
func (d *directory) listBelow(dir, rel string) error {
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

// readMarks adds extended attributes and flags. A protected /etc itself could not be renamed, so top has no flags.
func (e *entry) readMarks(full string, top bool) (err error) {
	if !top && (e.kind == kindFile || e.kind == kindDir) { // statx(2) calls every file of an EROFS image immutable
		if e.flags, err = durable.Flags(full); err != nil {
			return err
		}
	}
	e.xattrs, err = readXattrs(full, !top)
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

func sumOf(content []byte) string {
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

// mapOwners returns the tree with other owners.
func (l listing) mapOwners(ids func(uid, gid uint32) (uint32, uint32)) listing {
	out := listing{}
	for name, e := range l {
		e.uid, e.gid = ids(e.uid, e.gid)
		out[name] = e
	}
	return out
}

// has reports whether a tree has a path.
func has(l listing, name string) bool { _, ok := l[name]; return ok }

// everyPath returns the paths that any tree has.
func everyPath(sides ...listing) map[string]bool {
	names := map[string]bool{}
	for _, l := range sides {
		for name := range l {
			names[name] = true
		}
	}
	return names
}

// contentOf is what a file, link or device is.
func (e entry) contentOf() struct {
	sum, target string
	rdev        uint64
} {
	return struct {
		sum, target string
		rdev        uint64
	}{e.sum, e.target, e.rdev}
}

// readStart returns the first bytes of an ordinary file.
func readStart(dir, name string, limit int64) ([]byte, error) {
	f, err := openFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// create makes a file, link or device at to, without its attributes. With a nil content, that of a file is copied from
// a path.
func (e entry) create(content []byte, from, to string) error {
	switch e.kind {
	case kindLink:
		return os.Symlink(e.target, to)
	case kindDevice:
		if err := unix.Mknod(to, e.mode, int(e.rdev)); err != nil {
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

// apply sets owner, mode, extended attributes, time and flags, in this order: chown(2) clears set-id bits and
// capabilities, and flags protect the rest. What the file system does not support is added to refused.
func (e entry) apply(full string, refused map[string]bool) error {
	if err := os.Lchown(full, int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if e.kind != kindLink {
		if err := unix.Chmod(full, e.mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: full, Err: err}
		}
	}
	for _, attr := range slices.Sorted(maps.Keys(e.xattrs)) {
		err := unix.Lsetxattr(full, attr, []byte(e.xattrs[attr]), 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			refused[attr] = true // tmpfs, or a container that may not set labels
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "setxattr " + attr, Path: full, Err: err}
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(e.mtime.UnixNano()), unix.NsecToTimespec(e.mtime.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, full, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: full, Err: err}
	}
	if e.flags == 0 {
		return nil
	}
	err := durable.SetFlags(full, durable.Protected, e.flags)
	for _, unsupported := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, unsupported) {
			refused["immutable or append-only"] = true
			return nil
		}
	}
	return err
}

// hideMounted makes unchanged, as it is in a base, what mounts hide in a tree.
func hideMounted(mounts []string, base, tree listing) {
	for _, m := range mounts {
		for name, e := range base {
			if isUnder(name, m) {
				tree[name] = e
			}
		}
	}
}
