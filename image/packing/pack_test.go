package packing

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

var longAgo = time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)

// Attributes that a simple copy of a tree would lose.
const (
	// capNetRaw is cap_net_raw+ep as the kernel stores it (VFS_CAP_REVISION_2).
	capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	// aclUser1 is user::rw-,user:1:r--,group::r--,mask::r--,other::---.
	aclUser1 = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
)

// makeTree writes a small root with all that is easily lost.
func makeTree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), 0o600))
		check(t, os.Chmod(path, mode))
	}
	write("usr/lib/os-release", "ID=test\n", 0o644)
	write("usr/lib/systemd/systemd",
		"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\xb7\x00 and more", 0o755)
	write("usr/bin/ping", "ping", 0o755)
	write("usr/bin/sudo", "sudo", 0o755|os.ModeSetuid)
	write("etc/with space and \t#tab", "odd", 0o600)
	write("etc/acl", "acl", 0o640)
	write("run/lock/left-over", "x", 0o644)
	write("proc/left-over", "x", 0o644)
	check(t, os.MkdirAll(filepath.Join(root, "sys"), 0o555))
	check(t, os.Mkdir(filepath.Join(root, "tmp"), 0o755))
	check(t, os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky))
	check(t, os.Mkdir(filepath.Join(root, "dev"), 0o755))
	check(t, unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(t, unix.Mkfifo(filepath.Join(root, "dev/initctl"), 0o600))
	check(t, os.Symlink("/usr/lib/systemd/systemd", filepath.Join(root, "usr/bin/init")))
	check(t, os.Link(filepath.Join(root, "usr/bin/ping"), filepath.Join(root, "usr/bin/ping6")))
	check(t, os.Lchown(filepath.Join(root, "etc/acl"), 7, 8))
	check(t, unix.Setxattr(filepath.Join(root, "usr/bin/ping"), "security.capability", []byte(capNetRaw), 0))
	check(t, unix.Setxattr(filepath.Join(root, "etc/acl"), "system.posix_acl_access", []byte(aclUser1), 0))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	check(t, err)
	check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(root, "dev/log")}))
	check(t, unix.Close(fd))
	check(t, filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		ts := []unix.Timespec{unix.NsecToTimespec(longAgo.UnixNano()), unix.NsecToTimespec(longAgo.UnixNano())}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return root
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, r Recipe) *Packed {
	t.Helper()
	if r.Layout == "" {
		r.Layout = filepath.Join(t.TempDir(), "layout")
	}
	if r.Compression == "" {
		r.Compression = "zstd"
	}
	r.Tag = "test"
	p, err := Pack(context.Background(), r)
	check(t, err)
	return p
}

// entries reads the packed layer.
func entries(t *testing.T, layout string, p *Packed) map[string]*tar.Header {
	t.Helper()
	f, err := os.Open(filepath.Join(layout, "blobs/sha256", p.Layer.Digest.Encoded()))
	check(t, err)
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(p.Layer.MediaType, "+zstd") {
		z, err := zstd.NewReader(f)
		check(t, err)
		defer z.Close()
		r = z
	}
	all := make(map[string]*tar.Header)
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return all
		}
		check(t, err)
		all[h.Name] = h
	}
}

// Every attribute of the tree is in the layer, whether it is a directory or a tar file. What a build left in /proc,
// /sys and /run is not.
func TestPackKeeps(t *testing.T) {
	root := makeTree(t)
	trees := map[string]string{"directory": root, "tar": tarOf(t, root)}
	for name, tree := range trees {
		t.Run(name, func(t *testing.T) {
			layout := filepath.Join(t.TempDir(), "layout")
			p := pack(t, Recipe{Tree: tree, Layout: layout})
			got := entries(t, layout, p)
			for _, gone := range []string{"run/lock/", "run/lock/left-over", "proc/left-over", "dev/log"} {
				if got[gone] != nil {
					t.Errorf("%s was packed", gone)
				}
			}
			want := map[string]func(h *tar.Header) bool{
				".":            func(h *tar.Header) bool { return h.Typeflag == tar.TypeDir },
				"run/":         func(h *tar.Header) bool { return h.Typeflag == tar.TypeDir },
				"proc/":        func(h *tar.Header) bool { return h.Typeflag == tar.TypeDir },
				"sys/":         func(h *tar.Header) bool { return h.Mode&0o777 == 0o555 },
				"tmp/":         func(h *tar.Header) bool { return h.Mode&0o7777 == 0o1777 },
				"usr/bin/sudo": func(h *tar.Header) bool { return h.Mode&0o7777 == 0o4755 },
				"etc/acl": func(h *tar.Header) bool {
					return h.Uid == 7 && h.Gid == 8 && xattr(h, "system.posix_acl_access") == aclUser1
				},
				"etc/with space and \t#tab": func(h *tar.Header) bool { return h.Size == 3 },
				"dev/null": func(h *tar.Header) bool {
					return h.Typeflag == tar.TypeChar &&
						h.Devmajor == 1 && h.Devminor == 3
				},
				"dev/initctl":  func(h *tar.Header) bool { return h.Typeflag == tar.TypeFifo },
				"usr/bin/init": func(h *tar.Header) bool { return h.Linkname == "/usr/lib/systemd/systemd" },
				"usr/bin/ping": func(h *tar.Header) bool {
					return xattr(h,
						"security.capability") == capNetRaw
				},
				"usr/bin/ping6": func(h *tar.Header) bool {
					return h.Typeflag == tar.TypeLink &&
						h.Linkname == "usr/bin/ping"
				},
				"usr/lib/systemd/systemd": func(h *tar.Header) bool {
					return h.ModTime.Equal(longAgo.Truncate(time.Second)) && h.Uname == ""
				},
			}
			for name, right := range want {
				if h := got[name]; h == nil || !right(h) {
					t.Errorf("%q is %+v", name, h)
				}
			}
			if p.Platform.Architecture != "arm64" || p.Guessed {
				t.Errorf("platform %+v, guessed %v", p.Platform, p.Guessed)
			}
		})
	}
}

func xattr(h *tar.Header, name string) string { return h.PAXRecords[paxXattr+name] }

// tarOf writes a tar of a tree as other programs do: with "./" before names, and with user names.
func tarOf(t *testing.T, root string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "root.tar")
	f, err := os.Create(name)
	check(t, err)
	w := tar.NewWriter(f)
	inodes := map[uint64]string{}
	check(t, filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&os.ModeSocket != 0 {
			return err
		}
		link, _ := os.Readlink(path)
		h, err := tar.FileInfoHeader(info, link)
		check(t, err)
		rel, _ := filepath.Rel(root, path)
		h.Name, h.Uname, h.Gname, h.PAXRecords = "./"+rel, "somebody", "some", map[string]string{}
		for _, attr := range []string{"security.capability", "system.posix_acl_access"} {
			value := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, attr, value); err == nil {
				h.PAXRecords[paxXattr+attr] = string(value[:n])
			}
		}
		st := info.Sys().(*syscall.Stat_t)
		if first, ok := inodes[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		}
		inodes[st.Ino] = h.Name
		check(t, w.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			data, err := os.ReadFile(path)
			check(t, err)
			_, err = w.Write(data)
			check(t, err)
		}
		return nil
	}))
	check(t, w.Close())
	check(t, f.Close())
	return name
}

// The same tree gives the same manifest, wherever, whenever and in which order its files were made.
func TestPackIsReproducible(t *testing.T) {
	one, two := makeTree(t), makeTree(t)
	for _, compression := range Compressions {
		a := pack(t, Recipe{Tree: one, Compression: compression, Version: "1"})
		b := pack(t, Recipe{Tree: two, Compression: compression, Version: "1"})
		if a.Manifest.Digest != b.Manifest.Digest {
			t.Errorf("%s: %s and %s", compression, a.Manifest.Digest, b.Manifest.Digest)
		}
	}
	if a, b := pack(t, Recipe{Tree: tarOf(t, one)}),
		pack(t, Recipe{Tree: tarOf(t, two)}); a.Manifest.Digest != b.Manifest.Digest {
		t.Errorf("tar: %s and %s", a.Manifest.Digest, b.Manifest.Digest)
	}
	epoch := longAgo.Add(-time.Hour).Truncate(time.Second)
	a := pack(t, Recipe{Tree: one, Epoch: &epoch})
	later := time.Now()
	check(t, os.Chtimes(filepath.Join(two, "etc/acl"), later, later))
	if b := pack(t, Recipe{Tree: two, Epoch: &epoch}); a.Manifest.Digest != b.Manifest.Digest {
		t.Error("SOURCE_DATE_EPOCH does not hold back the times of files")
	}
}

func TestPackManifest(t *testing.T) {
	for compression, suffix := range map[string]string{"zstd": "+zstd", "gzip": "+gzip", "none": ""} {
		layout := filepath.Join(t.TempDir(), "layout")
		p := pack(t, Recipe{Tree: makeTree(t), Layout: layout, Compression: compression, Version: "24.1",
			Architecture: "riscv64"})
		var m ocispec.Manifest
		readBlob(t, layout, p.Manifest, &m)
		if len(m.Layers) != 1 || m.Layers[0].MediaType != ocispec.MediaTypeImageLayer+suffix ||
			m.Annotations[ocispec.AnnotationVersion] != "24.1" || m.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("%s: manifest %+v", compression, m)
		}
		var c ocispec.Image
		readBlob(t, layout, m.Config, &c)
		if c.OS != "linux" || c.Architecture != "riscv64" || len(c.RootFS.DiffIDs) != 1 ||
			c.RootFS.DiffIDs[0] != p.DiffID || c.Created != nil {
			t.Errorf("%s: configuration %+v", compression, c)
		}
	}
}

func readBlob(t *testing.T, layout string, d ocispec.Descriptor, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(layout, "blobs/sha256", d.Digest.Encoded()))
	check(t, err)
	check(t, json.Unmarshal(data, v))
}

// Packing to the same tag moves it. The rest of the layout stays.
func TestPackAgain(t *testing.T) {
	layout := filepath.Join(t.TempDir(), "deep/layout")
	root := makeTree(t)
	first := pack(t, Recipe{Tree: root, Layout: layout})
	second := pack(t, Recipe{Tree: root, Layout: layout, Version: "2"})
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(layout, "index.json"))
	check(t, err)
	check(t, json.Unmarshal(data, &index))
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != second.Manifest.Digest ||
		first.Manifest.Digest == second.Manifest.Digest {
		t.Errorf("index %+v", index.Manifests)
	}
}

func TestPackRefuses(t *testing.T) {
	dir := t.TempDir()
	tarball := func(name string, headers ...*tar.Header) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			check(t, w.WriteHeader(h))
		}
		check(t, w.Close())
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, b.Bytes(), 0o644))
		return path
	}
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg} }
	deletion := filepath.Join(t.TempDir(), "root")
	check(t, os.MkdirAll(filepath.Join(deletion, "etc/.wh.passwd"), 0o755))
	odd := filepath.Join(t.TempDir(), "root")
	check(t, os.MkdirAll(filepath.Join(odd, "etc/two\nlines"), 0o755))
	mounted := filepath.Join(t.TempDir(), "root")
	check(t, os.MkdirAll(filepath.Join(mounted, "dev"), 0o755))
	check(t, unix.Mount("tmpfs", filepath.Join(mounted, "dev"), "tmpfs", 0, ""))
	t.Cleanup(func() { check(t, unix.Unmount(filepath.Join(mounted, "dev"), 0)) })
	check(t, os.WriteFile(filepath.Join(dir, "text"), bytes.Repeat([]byte("no tar "), 200), 0o644))
	whole, err := os.ReadFile(tarOf(t, makeTree(t)))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "cut"), whole[:len(whole)/2], 0o644))

	tests := []struct {
		name, tree, says string
		err              error
	}{
		{"nothing there", filepath.Join(dir, "none"), "none", os.ErrNotExist},
		{"deletion in a directory", deletion, ".wh.passwd", ErrTree},
		{"new line in a directory", odd, "new line", ErrTree},
		{"new line in a tar", tarball("line", file("etc/two\nlines")), "new line", ErrTree},
		{"long name in a tar", tarball("long", file(strings.Repeat("x", 256))), "256 bytes", ErrTree},
		{"long path in a tar", tarball("deep", file(strings.Repeat("x/", 2048)+"x")), "bytes", ErrTree},
		{"mounted file system", mounted, "another file system", ErrTree},
		{"no tar", filepath.Join(dir, "text"), "not an uncompressed tar", ErrTree},
		{"cut tar", filepath.Join(dir, "cut"), "", ErrTree},
		{"empty tar", tarball("empty"), "empty", ErrTree},
		{"deletion in a tar", tarball("wh", file("etc/.wh.passwd")), ".wh.passwd", ErrTree},
		{"a name twice", tarball("twice", file("a"), file("./b/../a")), `contains "a" twice`, ErrTree},
		{"text ACL", tarball("acl",
			&tar.Header{Name: "a", Typeflag: tar.TypeReg,
				PAXRecords: map[string]string{"SCHILY.acl.access": "user::rw-"}}), "ACL as text", ErrTree},
		{"link into /proc", tarball("link", file("proc/x"),
			&tar.Header{Name: "y", Typeflag: tar.TypeLink, Linkname: "proc/x"}), "left out", ErrTree},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Pack(context.Background(),
				Recipe{Tree: test.tree, Layout: filepath.Join(t.TempDir(), "l"), Tag: "t", Compression: "none"})
			if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %v with %q", err, test.err, test.says)
			}
		})
	}
}

func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	root := makeTree(t)
	random := make([]byte, 256<<10)
	_, err := rand.Read(random)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(root, "usr/big"), random, 0o644))
	_, err = Pack(context.Background(),
		Recipe{Tree: root, Layout: filepath.Join(dir, "layout"), Tag: "t", Compression: "zstd"})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
