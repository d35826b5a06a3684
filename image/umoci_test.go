package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	umoci "github.com/opencontainers/umoci/oci/layer"
	"golang.org/x/sys/unix"
)

// capNetRaw is a security.capability of version 2: cap_net_raw, effective.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// acl is an ACL in the form of the kernel: rw for the owner, r for user 1000, r for the group and as mask, nothing for
// others. It belongs to mode 0640.
const acl = "\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// TestSameTreeAsUmoci unpacks layers with unusual files by umoci, mounts the root that is staged from them, and
// compares every attribute.
func TestSameTreeAsUmoci(t *testing.T) {
	odd := oddTree(t)
	layers := [][]byte{
		gnuTar(t, odd, "--format=gnu", "--sparse"),
		gnuTar(t, oddTree(t), "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*",
			"--transform=s,^\\./odd,./posix,"),
		attributeLayer(),
		randomLayer(1, 600),
		changes(),
		randomLayer(2, 100),
	}
	b := newBuilder(t)
	types := []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayer}
	for i, l := range layers {
		b.layer(types[i%len(types)], l)
	}
	st := newStore(t)
	root, err := b.stage(st)
	if err != nil {
		t.Fatal(err)
	}

	reused := &stacked{builder: b, t: t, st: st}
	img := reused.relabelled(len(layers), root.Info.RootDigest)
	reused.withhold(0, 1, 2, 3, 4, 5)
	if again := reused.mustStage(img); again.ID == root.ID || again.Info.RootDigest != root.Info.RootDigest {
		t.Errorf("without the layers, the root is %s, %s; want %s", again.ID, again.Info.RootDigest, root.Info.RootDigest)
	}

	layers[0] = gnuTar(t, odd, "--format=gnu") // umoci does not support the sparse type of GNU tar
	unpacked := t.TempDir()
	for _, l := range layers {
		if err := umoci.UnpackLayer(unpacked, bytes.NewReader(l),
			&umoci.UnpackOptions{OnDiskFormat: umoci.DirRootfs{}}); err != nil {
			t.Fatal(err)
		}
	}
	theirs, ours := scan(t, unpacked), scan(t, mountRoot(t, st, root))
	if len(theirs) < 500 {
		t.Fatalf("only %d names to compare", len(theirs))
	}
	for name, want := range theirs {
		got, ok := ours[name]
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		// umoci leaves out SELinux labels.
		delete(got.Xattrs, "security.selinux")
		if len(got.Xattrs) == 0 {
			got.Xattrs = nil
		}
		if !reflect.DeepEqual(got, want) {
			got.Content, want.Content = short(got.Content), short(want.Content)
			t.Errorf("%s\n got %+v\nwant %+v", name, got, want)
		}
	}
	for name := range ours {
		if _, ok := theirs[name]; !ok {
			t.Errorf("%s is too many", name)
		}
	}
	checkSeen(t, ours)
}

// checkSeen checks that the unusual files were there to be compared.
func checkSeen(t *testing.T, tree map[string]attributes) {
	t.Helper()
	seen := map[string]bool{}
	for name, a := range tree {
		seen[fmt.Sprintf("type %o", a.Mode&unix.S_IFMT)] = true
		seen["hard link"] = seen["hard link"] || a.FirstSibling != "" && a.FirstSibling != name
		seen["long path"] = seen["long path"] || len(name) > 256
		seen["nanoseconds"] = seen["nanoseconds"] || a.Mtime.Nsec != 0
		seen["before 1970"] = seen["before 1970"] || a.Mtime.Sec < 0
		seen["set-uid"] = seen["set-uid"] || a.Mode&unix.S_ISUID != 0
		seen["large owner"] = seen["large owner"] || a.UID > 1<<16
		for x := range a.Xattrs {
			seen[x] = true
		}
	}
	for _, what := range []string{
		"type 40000", "type 100000", "type 120000", "type 20000", "type 60000", "type 10000",
		"hard link", "long path", "nanoseconds", "before 1970", "set-uid", "large owner",
		"security.capability", "system.posix_acl_access", "user.note", "trusted.mine",
	} {
		if !seen[what] {
			t.Errorf("nothing with %s was compared", what)
		}
	}
}

func short(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%s… (%d bytes)", s[:60], len(s))
	}
	return s
}

// oddTree makes a directory with files that GNU tar stores in a special form.
func oddTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	deep := filepath.Join(odd, strings.Repeat("a-rather-long-directory-name/", 12))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(deep, 0o755))
	check(os.WriteFile(filepath.Join(deep, strings.Repeat("n", 250)), []byte("long"), 0o600))
	check(os.Symlink(strings.Repeat("t/", 300), filepath.Join(odd, "long-target")))
	check(os.WriteFile(filepath.Join(odd, "first"), []byte("linked"), 0o644))
	check(os.Link(filepath.Join(odd, "first"), filepath.Join(deep, "second")))
	check(os.WriteFile(filepath.Join(odd, "new line and \\ and é \xff"), nil, 0o644))
	check(unix.Mkfifo(filepath.Join(odd, "fifo"), 0o620))
	check(unix.Mknod(filepath.Join(odd, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(unix.Mknod(filepath.Join(odd, "disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	f := must(os.Create(filepath.Join(odd, "sparse")))
	must(f.WriteAt([]byte("start"), 0))
	must(f.WriteAt([]byte("middle"), 3<<20))
	check(f.Truncate(9<<20 + 77))
	check(f.Close())
	check(unix.Setxattr(filepath.Join(odd, "first"), "user.note", []byte("a\x00b\nc"), 0))
	check(unix.Setxattr(deep, "trusted.mine", []byte("1"), 0))
	check(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		stamp := []unix.Timespec{{Sec: 1700000000, Nsec: 0}, {Sec: 1700000001, Nsec: 987654321}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, stamp, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return dir
}

func gnuTar(t *testing.T, dir string, options ...string) []byte {
	t.Helper()
	args := append([]string{"--numeric-owner", "--sort=name", "-C", dir, "-cf", "-"}, options...)
	out, err := exec.Command("tar", append(args, "./odd")...).Output()
	if err != nil {
		t.Fatalf("tar: %v", err)
	}
	return out
}

// attributeLayer has the attributes that matter on a host, in a bootable tree.
func attributeLayer() []byte {
	stamped := func(e ent, sec, nsec int64) ent {
		e.Format, e.ModTime = tar.FormatPAX, time.Unix(sec, nsec)
		return e
	}
	attr := func(e ent, name, value string) ent {
		if e.PAXRecords == nil {
			e.PAXRecords = map[string]string{}
		}
		e.PAXRecords["SCHILY.xattr."+name] = value
		return e
	}
	owned := func(e ent, mode int64, uid, gid int) ent {
		e.Mode, e.Uid, e.Gid = mode, uid, gid
		return e
	}
	entries := []ent{folder("./"), folder("usr"), folder("usr/lib"), folder("usr/lib/systemd"), folder("etc"),
		folder("tmp")}
	entries = append(entries, bootable()...)
	return packLayer(append(entries,
		owned(folder("tmp"), 0o1777, 0, 0),
		attr(owned(program("usr/ping", "#!"), 0o755, 0, 0), "security.capability", capNetRaw),
		attr(attr(owned(reg("usr/journal", "log"), 0o640, 3, 4), "system.posix_acl_access", acl), "security.selinux",
			"system_u:object_r:var_log_t:s0\x00"),
		attr(owned(folder("usr/spool"), 0o2755, 100000, 3000000000), "system.posix_acl_default", acl),
		owned(program("usr/su", "#!"), 0o4755, 0, 0),
		owned(reg("usr/secret", ""), 0, 4294967294, 65536),
		attr(sym("usr/link", "su"), "trusted.mine", "on a link"),
		stamped(reg("usr/fine", "x"), 1600000000, 123456789),
		stamped(reg("usr/old", "x"), -86400, 0),
		stamped(folder("usr/new"), 1<<33, 0),
		hard("usr/again", "usr/ping"),
	)...)
}

// changes replaces, removes and links across layers.
func changes() []byte {
	return packLayer(
		reg("odd/first", "replaced, the other name stays"),
		reg("posix/.wh.sparse", ""), reg("posix/.wh.fifo", ""),
		reg("r/d0/.wh..wh..opq", ""), folder("r/d0"), reg("r/d0/fresh", "1"),
		reg("r/.wh.d1", ""),
		sym("lib", "usr/lib"), reg("lib/through", "a link"), folder("lib/dir"),
		sym("abs", "/usr/lib"), reg("abs/through-absolute", "a link"),
		hard("usr/third", "/abs/through-absolute"),
		folder("usr/link"), reg("usr/link/now-a-directory", ""),
		reg("usr/new", "now a file"),
		hard("lib/ping", "usr/again"),
	)
}

// randomLayer writes n entries below r/ from a seed: files and links in twenty directories, with repeating names.
func randomLayer(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, seed))
	entries := []ent{folder("r")}
	for i := range 20 {
		d := folder(fmt.Sprintf("r/d%d", i))
		d.ModTime = time.Unix(int64(rnd.IntN(1<<30)), 0)
		entries = append(entries, d)
	}
	var files []string
	for range n {
		name := fmt.Sprintf("r/d%d/f%d", rnd.IntN(20), rnd.IntN(100))
		switch {
		case len(files) > 0 && rnd.IntN(10) == 0:
			if target := files[rnd.IntN(len(files))]; target != name {
				entries = append(entries, hard(name, target))
			}
		case rnd.IntN(10) == 0:
			entries = append(entries, sym(name, fmt.Sprintf("f%d", rnd.IntN(100))))
		default:
			var content bytes.Buffer
			io.CopyN(&content, &repeat{byte(rnd.IntN(256))}, int64(rnd.IntN(20000)))
			e := reg(name, content.String())
			e.Mode, e.Uid, e.ModTime = int64(rnd.IntN(0o1000)), rnd.IntN(70000), time.Unix(int64(rnd.IntN(1<<30)), 0)
			entries = append(entries, e)
		}
		files = append(files, name)
	}
	return packLayer(entries...)
}

// repeat is an endless stream of one byte.
type repeat struct{ b byte }

func (r *repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.b
	}
	return len(p), nil
}
