package image

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/store"
)

// mountRoot mounts a staged root as a host does: overlayfs joins the EROFS image with the objects. It needs root, and
// Linux 6.12 or newer.
func mountRoot(t testing.TB, st *store.Store, r store.Root) string {
	t.Helper()
	meta, root := t.TempDir(), t.TempDir()
	mount(t, r.CFS(), meta, "erofs", "")
	mount(t, "updatectl:"+r.ID, root, "overlay",
		fmt.Sprintf("metacopy=on,redirect_dir=on,lowerdir=%s::%s", meta, st.ObjectsDir()))
	return root
}

func mount(t testing.TB, source, target, kind, options string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, unix.MS_RDONLY, options); err != nil {
		t.Fatalf("mount -t %s -o %s %s: %v", kind, options, source, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("umount %s: %v", target, err)
		}
	})
}

// attributes has the attributes by which trees are compared.
type attributes struct {
	Mode         uint32
	UID, GID     uint32
	Size         int64
	Nlink        uint64
	Rdev         uint64
	Mtime        unix.Timespec
	Target       string
	Xattrs       map[string]string
	Content      string
	FirstSibling string // first name of the same inode
}

// scan returns the attributes of every name below dir.
func scan(t testing.TB, dir string) map[string]attributes {
	t.Helper()
	tree := map[string]attributes{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel := must(filepath.Rel(dir, path))
		a := attributes{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: st.Nlink, Rdev: st.Rdev, Mtime: st.Mtim,
			Xattrs: xattrsOf(t, path),
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			a.Size, a.Content = st.Size, string(must(os.ReadFile(path)))
		case unix.S_IFLNK:
			a.Target = must(os.Readlink(path))
		case unix.S_IFDIR:
			a.Nlink = 0 // overlayfs counts the links of directories differently
		}
		if a.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			a.FirstSibling = first[st.Ino]
		}
		tree[rel] = a
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func xattrsOf(t testing.TB, path string) map[string]string {
	t.Helper()
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatalf("listxattr %s: %v", path, err)
	}
	var xattrs map[string]string
	for _, name := range splitNames(names[:n]) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("getxattr %s %s: %v", path, name, err)
		}
		if xattrs == nil {
			xattrs = map[string]string{}
		}
		xattrs[name] = string(value[:n])
	}
	return xattrs
}

func splitNames(buf []byte) []string {
	var names []string
	start := 0
	for i, b := range buf {
		if b == 0 {
			names = append(names, string(buf[start:i]))
			start = i + 1
		}
	}
	return names
}
