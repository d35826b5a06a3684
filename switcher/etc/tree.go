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
	"github.com/updatectl/updatectl/switcher/etc/accounts"
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

// snapshot is one side of the merge: the tree, and the files that are merged by content.
type snapshot struct {
	tree   listing
	tables accounts.Tables   // databases that are ordinary files, or mounted files
	text   map[string][]byte // their content, and that of fstab and of the interfaces of ifupdown
	units  map[string][]byte // the content of mount and swap units that is not that of their files
	shells []string          // lines of /etc/shells
	access accounts.Access   // who uses the host; of the host's side only
	mounts []string          // mount points, which are not crossed
	notes  []string
}

// ErrTooLarge is returned for a user database or an fstab that is larger than any real one.
var ErrTooLarge = errors.New("larger than such a file can be")

// readSnapshot reads one side from a directory, which may be given as /proc/self/fd/N. The error is an ErrTooLarge or
// one of the file system.
func readSnapshot(dir string) (snapshot, error) {
	s := snapshot{tree: listing{}, tables: accounts.Tables{}, text: map[string][]byte{}, units: map[string][]byte{}}
	if err := s.list(dir, "."); err != nil {
		return s, err
	}
	for _, file := range accounts.Files {
		content, err := readText(dir, file, accounts.MaxTable)
		if err != nil {
			return s, err
		}
		if content != nil {
			s.text[file], s.tables[file] = content, accounts.Parse(file, content)
		}
	}
	fstab, err := readText(dir, "fstab", maxFstab)
	if err != nil {
		return s, err
	}
	if fstab != nil {
		s.text["fstab"] = fstab
	}
	for _, file := range []string{interfaces, authoritiesConf} {
		if s.text[file], err = readText(dir, file, maxConfig); err != nil {
			return s, err
		}
	}
	shells, err := readText(dir, "shells", maxFstab)
	for line := range bytes.Lines(shells) {
		if l := strings.TrimSpace(string(line)); strings.HasPrefix(l, "/") {
			s.shells = append(s.shells, l)
		}
	}
	s.access.Shells = s.shells
	return s, err
}

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

// list adds a path, and what is below it, to the tree.
func (s *snapshot) list(dir, rel string) error {
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
		s.mounts = append(s.mounts, rel)
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
		s.notes = append(s.notes, rel+": a socket or FIFO; not carried over")
		return nil
	}
	if err != nil {
		return err
	}
	if err = e.readMarks(full, rel == "."); err != nil {
		return err
	}
	s.tree[rel] = e
	if e.kind != kindDir {
		return nil
	}
	return s.listBelow(dir, rel)
}

// listBelow lists what is in a directory. A file that vanishes meanwhile, on a running host, counts as missing.
func (s *snapshot) listBelow(dir, rel string) error {
	names, err := os.ReadDir(filepath.Join(dir, rel))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.list(dir, path.Join(rel, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// mapOwners returns the tree with this host's numbers.
func (l listing) mapOwners(ids accounts.IDs) listing {
	out := listing{}
	for name, e := range l {
		e.uid, e.gid = ids.Map(e.uid, e.gid)
		out[name] = e
	}
	return out
}

// isUnder reports whether a path is dir or below it.
func isUnder(name, dir string) bool {
	return name == dir || dir == "." || strings.HasPrefix(name, dir+"/")
}
