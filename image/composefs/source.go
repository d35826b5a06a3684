package composefs

import (
	"io/fs"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

// The extended attributes by which overlayfs finds the content of a file.
const (
	redirectXattr = "trusted.overlay.redirect"
	metacopyXattr = "trusted.overlay.metacopy"
	// metacopyHeader is struct ovl_metacopy: version 0, 36 bytes in all, no flags, digest algorithm 1 (SHA-256). The
	// digest follows.
	metacopyHeader = "\x00\x24\x00\x01"
	aclAccess      = "system.posix_acl_access"
	aclDefault     = "system.posix_acl_default"
	// aclSuffix makes go-erofs 0.3.1 store an ACL the way the kernel reads it, as a number without a name. The names
	// in its table end with a dot too many; without one, the kernel does not see the attribute.
	aclSuffix = "."
)

// ObjectPath returns the path of an object below the object directory.
func ObjectPath(d fsverity.Digest) string {
	name := d.String()
	return name[:2] + "/" + name[2:]
}

// source presents a tree to go-erofs as a file system without content.
type source struct {
	tree    *layer.Tree
	links   map[*layer.Inode]uint32 // number of names of an inode that is no directory
	first   map[*layer.Inode]string // first path of a hard-linked inode
	aliases []alias
	acl     bool
}

// alias is another name of an inode.
type alias struct{ path, target string }

// newSource counts links and collects aliases.
func newSource(tree *layer.Tree) (*source, error) {
	s := &source{tree: tree, links: map[*layer.Inode]uint32{}, first: map[*layer.Inode]string{}}
	err := tree.Walk(func(path string, n *layer.Inode) error {
		_, access := n.Xattrs[aclAccess]
		_, def := n.Xattrs[aclDefault]
		s.acl = s.acl || access || def
		if n.IsDir() {
			return nil
		}
		if s.links[n]++; s.links[n] == 1 {
			s.first[n] = path
		} else {
			s.aliases = append(s.aliases, alias{path, s.first[n]})
		}
		return nil
	})
	return s, err
}

// inode returns the inode at a path, without following symbolic links.
func (s *source) inode(name string) (*layer.Inode, error) {
	n := s.tree.Root()
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if n = n.Child(part); n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// Open makes source an fs.FS. A metadata-only copy never calls it.
func (s *source) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

// Stat describes a path.
func (s *source) Stat(name string) (fs.FileInfo, error) {
	n, err := s.inode(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return s.describe(name, n), nil
}

// ReadDir lists a directory, sorted by name.
func (s *source) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := s.inode(name)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	names := n.Names()
	entries := make([]fs.DirEntry, len(names))
	for i, child := range names {
		entries[i] = fs.FileInfoToDirEntry(s.describe(path.Join(name, child), n.Child(child)))
	}
	return entries, nil
}

// ReadLink returns the target of a symbolic link.
func (s *source) ReadLink(name string) (string, error) {
	n, err := s.inode(name)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return n.Target, nil
}

// describe returns the FileInfo of an inode under one of its names. An alias becomes a placeholder, the smallest inode
// possible, which joinLinks replaces.
func (s *source) describe(name string, n *layer.Inode) fs.FileInfo {
	if !n.IsDir() && s.links[n] > 1 && s.first[n] != name {
		return &info{name: path.Base(name), mode: fs.ModeNamedPipe, stat: erofs.Stat{Nlink: 1}}
	}
	i := &info{name: path.Base(name), mode: goMode(n.Mode), size: n.Size}
	i.stat = erofs.Stat{
		UID: n.UID, GID: n.GID,
		Mtime: uint64(n.Mtime), MtimeNs: n.MtimeNs,
		Rdev:   encodeDevice(n.Major, n.Minor),
		Nlink:  int(s.links[n]),
		Xattrs: stored(n),
	}
	if n.IsDir() {
		i.stat.Nlink = 2 + subdirectories(n)
	}
	return i
}

// stored returns the extended attributes of an inode as they are written to the image, with those that say where its
// content is.
func stored(n *layer.Inode) map[string]string {
	xattrs := make(map[string]string, len(n.Xattrs)+2)
	maps.Copy(xattrs, n.Xattrs)
	for _, acl := range []string{aclAccess, aclDefault} {
		if value, ok := xattrs[acl]; ok {
			delete(xattrs, acl)
			xattrs[acl+aclSuffix] = value
		}
	}
	if n.IsRegular() && n.Size > 0 {
		xattrs[redirectXattr] = "/" + ObjectPath(n.Object)
		xattrs[metacopyXattr] = metacopyHeader + string(n.Object[:])
	}
	return xattrs
}

func subdirectories(n *layer.Inode) int {
	count := 0
	for _, name := range n.Names() {
		if n.Child(name).IsDir() {
			count++
		}
	}
	return count
}

// encodeDevice encodes a device number like the kernel's new_encode_dev.
func encodeDevice(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// goMode converts st_mode to the mode that os.Lstat would return.
func goMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	}
	for bit, flag := range map[uint32]fs.FileMode{
		unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
	} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// info is an fs.FileInfo with the Sys that go-erofs expects.
type info struct {
	name string
	mode fs.FileMode
	size int64
	stat erofs.Stat
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.size }
func (i *info) Mode() fs.FileMode  { return i.mode }
func (i *info) ModTime() time.Time { return time.Unix(int64(i.stat.Mtime), int64(i.stat.MtimeNs)) }
func (i *info) IsDir() bool        { return i.mode.IsDir() }
func (i *info) Sys() any           { return &i.stat }

// DataRange makes the whole file a hole, because the image has no content.
func (i *info) DataRange() []erofs.DataRange {
	if !i.mode.IsRegular() || i.size == 0 {
		return nil
	}
	return []erofs.DataRange{{Offset: -1, Size: i.size}}
}
