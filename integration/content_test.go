//go:build lab

package integration

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestSameTree compares the root that updatectl stages with what umoci unpacks from the same image, on a whole Debian
// server and, in further layers, on everything odd that a file system can hold. The root is looked at in four ways: as
// the kernel mounts it (EROFS joined with the objects by overlayfs), as mount.composefs does, as composefs-info reads the
// image without mounting it, and beside the image that mkcomposefs makes of umoci's tree.
//
// Type, mode, owner, size, time to the nanosecond, link target, device number, every extended attribute, content and
// which names are one inode have to be the same for every path. All exceptions:
//
//   - security.selinux: umoci leaves it out by its own decision. Of our root it must be what the layer says.
//   - A mounted directory's link count: overlayfs reports 1 for all. The image itself has the true one, as
//     composefs-info shows, which is compared.
//   - The sizes of directories: a matter of each file system.
//
// There is none for hard links: an EROFS directory entry is a name and an inode number, so the format can hold them, and
// does, although go-erofs cannot write them and mkcomposefs does not look for them.
func TestSameTree(t *testing.T) {
	b := newBench(t)
	layout := b.oddImage()
	b.sign(layout)
	store := b.stage("oci:" + layout + ":latest")

	bundle := filepath.Join(b.dir, "umoci")
	b.tool("umoci", "unpack", "--image", layout+":latest", bundle)
	rootfs := filepath.Join(bundle, "rootfs")
	theirs := readTree(t, rootfs)
	if len(theirs) < 8000 {
		t.Fatalf("umoci unpacked %d names: that is no server", len(theirs))
	}
	checkOdd(t, theirs)
	t.Logf("%d names to compare", len(theirs))

	t.Run("kernel", func(t *testing.T) {
		sameTree(t, withoutLabels(t, readTree(t, store.mount(t))), theirs)
	})
	t.Run("mount.composefs", func(t *testing.T) {
		target := filepath.Join(b.dir, "mounted")
		if err := os.Mkdir(target, 0o755); err != nil {
			t.Fatal(err)
		}
		b.tool("mount.composefs", "-o", "ro,basedir="+store.objects(), store.cfs(), target)
		seen := filepath.Join(b.tools, target) // the tools have the cache mounted in a tree of their own
		t.Cleanup(func() {
			if err := unix.Unmount(seen, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		sameTree(t, withoutLabels(t, readTree(t, seen)), theirs)
	})
	t.Run("composefs-info", func(t *testing.T) {
		dump := b.dump(store.cfs())
		sameTree(t, withoutLabels(t, dump.nodes(t, store.objects())), onDisk(theirs))
		b.sameListing(t, store, dump)
		b.checkObjects(t, store, dump)
	})
	t.Run("mkcomposefs", func(t *testing.T) {
		// The images' own digests differ: mkcomposefs puts files of up to 64 bytes into the image, makes an inode of every
		// name, and lays out attributes and holes in another way. What counts is that both say the same.
		image := filepath.Join(b.dir, "theirs.cfs")
		b.tool("mkcomposefs", rootfs, image)
		b.samePeerImage(t, b.dump(store.cfs()), b.dump(image))
	})
}

// bench is what tests of images need: a publisher with the tools of others, and a place to work. There is no host:
// updatectl works on a tree beside it.
type bench struct {
	*testing.T
	publisher *lab.Publisher
	tools     string
	dir       string
	hosts     int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t}
	var err error
	if b.publisher, err = lab.NewPublisher(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.tools, err = lab.Tools(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.dir, err = os.MkdirTemp(lab.RunDir(), "bench-"); err != nil { // below the cache, which the tools see
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(b.dir); err != nil {
			t.Error(err)
		}
	})
	return b
}

// tool runs a tool of others.
func (b *bench) tool(name string, args ...string) string {
	b.Helper()
	out, err := lab.Tool(b.Context(), b.tools, name, args...)
	if err != nil {
		b.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

// run runs a built program of the project and expects an exit code.
func (b *bench) run(code int, program string, args ...string) string {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), lab.Binary(b, program), args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=") // of the publisher's key
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		b.Fatalf("%s %s ended with %d, want %d\n%s%s", program, strings.Join(args, " "), got, code, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

// sign signs the image of a layout with releasectl.
func (b *bench) sign(layout string) {
	b.Helper()
	b.run(0, "releasectl", "sign", "--key", b.publisher.Key, "oci:"+layout+":latest")
}

// host makes a tree for updatectl --root, configured to trust the publisher.
func (b *bench) host(plainHTTP ...string) string {
	b.Helper()
	b.hosts++
	root := filepath.Join(b.dir, fmt.Sprintf("host-%d", b.hosts))
	dir := filepath.Join(root, "etc/updatectl")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"release.pub":    b.publisher.Public,
		"updatectl.toml": fmt.Sprintf("[source]\nplain-http = [%s]\n[verify]\nkeys = [\"/etc/updatectl/release.pub\"]\n", quoted(plainHTTP)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

func quoted(list []string) string {
	var all []string
	for _, s := range list {
		all = append(all, strconv.Quote(s))
	}
	return strings.Join(all, ", ")
}

// stage stages an image in a store of its own.
func (b *bench) stage(reference string, plainHTTP ...string) staged {
	b.Helper()
	root := b.host(plainHTTP...)
	b.run(exitAvailable, "updatectl", "--root", root, "stage", "--from", reference)
	s := staged{filepath.Join(root, "var/lib/updatectl"), ""}
	roots, err := os.ReadDir(filepath.Join(s.store, "roots"))
	if err != nil || len(roots) != 1 {
		b.Fatalf("there are %d roots after one was staged (%v)", len(roots), err)
	}
	s.id = roots[0].Name()
	return s
}

// staged is a root in a store that has no other.
type staged struct{ store, id string }

func (s staged) objects() string { return filepath.Join(s.store, "objects") }
func (s staged) cfs() string     { return filepath.Join(s.store, "roots", s.id, "root.cfs") }

// mount mounts the root by the kernel's own means, as docs/design.md describes it.
func (s staged) mount(t *testing.T) string {
	t.Helper()
	meta, root := t.TempDir(), t.TempDir()
	for _, m := range []struct{ source, target, kind, options string }{
		{s.cfs(), meta, "erofs", ""},
		{"updatectl:" + s.id, root, "overlay", fmt.Sprintf("metacopy=on,redirect_dir=on,lowerdir=%s::%s", meta, s.objects())},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, unix.MS_RDONLY, m.options); err != nil {
			t.Fatalf("mount -t %s -o %s %s: %v", m.kind, m.options, m.source, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	return root
}

// node is what two trees are compared by: all that a program can learn of a name.
type node struct {
	Mode     uint32
	UID, GID uint32
	Nlink    uint64
	Rdev     uint64
	Size     int64
	Mtime    string // seconds.nanoseconds
	Target   string
	Xattrs   map[string]string
	Content  string // sha256 of a regular file
	First    string // the first name of the same inode, of a file with several
}

// readTree describes every name below a directory, "." being the directory.
func readTree(t *testing.T, dir string) map[string]node {
	t.Helper()
	tree := map[string]node{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		n, ino, err := readNode(path)
		if n.Nlink > 1 && n.Mode&unix.S_IFMT != unix.S_IFDIR {
			if first[ino] == "" {
				first[ino] = name
			}
			n.First = first[ino]
		}
		tree[name] = n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := addContents(tree, dir); err != nil {
		t.Fatal(err)
	}
	return tree
}

// readNode describes a name, without content.
func readNode(path string) (node, uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return node{}, 0, fmt.Errorf("lstat %s: %w", path, err)
	}
	n := node{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: st.Nlink, Rdev: st.Rdev,
		Mtime: fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec),
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		var fsys unix.Statfs_t
		if err = unix.Statfs(path, &fsys); err == nil && fsys.Type == unix.OVERLAYFS_SUPER_MAGIC {
			n.Nlink = 0
		}
	case unix.S_IFREG:
		n.Size = st.Size
	case unix.S_IFLNK:
		n.Size = st.Size
		n.Target, err = os.Readlink(path)
	}
	if err == nil {
		n.Xattrs, err = readXattrs(path)
	}
	return n, st.Ino, err
}

func readXattrs(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return nil, fmt.Errorf("listxattr %s: %w", path, err)
	}
	xattrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return nil, fmt.Errorf("getxattr %s %s: %w", path, name, err)
		}
		xattrs[name] = string(buf[:n])
	}
	return xattrs, nil
}

// addContents reads all regular files, some at a time.
func addContents(tree map[string]node, dir string) error {
	var regular []string
	for name, n := range tree {
		if n.Mode&unix.S_IFMT == unix.S_IFREG {
			regular = append(regular, name)
		}
	}
	sums := make([]string, len(regular))
	const readers = 4
	failed := make([]error, readers)
	var done sync.WaitGroup
	for r := range readers {
		done.Go(func() {
			for i := r; i < len(regular) && failed[r] == nil; i += readers {
				sums[i], failed[r] = sumFile(filepath.Join(dir, regular[i]))
			}
		})
	}
	done.Wait()
	for i, name := range regular {
		n := tree[name]
		n.Content = sums[i]
		tree[name] = n
	}
	return errors.Join(failed...)
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
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

// sameTree reports every name in which two trees differ.
func sameTree(t *testing.T, got, want map[string]node) {
	t.Helper()
	differ := 0
	for _, name := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[name]
		w := want[name]
		if g.Nlink == 0 || w.Nlink == 0 { // a directory on an overlay
			g.Nlink, w.Nlink = 0, 0
		}
		switch {
		case !ok:
			t.Errorf("%q is missing", name)
		case !reflect.DeepEqual(g, w):
			t.Errorf("%q\n got %+v\nwant %+v", name, g, w)
		default:
			continue
		}
		if differ++; differ > 20 {
			t.Fatal("and more")
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is too many", name)
		}
	}
}

const (
	labelled = "usr/share/odd/labelled"
	label    = "system_u:object_r:etc_t:s0\x00"
)

// withoutLabels takes out the one attribute that umoci never unpacks, and expects it exactly where the image has it.
func withoutLabels(t *testing.T, tree map[string]node) map[string]node {
	t.Helper()
	var found []string
	for name, n := range tree {
		if value, ok := n.Xattrs["security.selinux"]; ok {
			found = append(found, name+"="+value)
			delete(n.Xattrs, "security.selinux")
		}
	}
	if len(found) != 1 || found[0] != labelled+"="+label {
		t.Errorf("files with SELinux labels: %q, want %s with %q", found, labelled, label)
	}
	return tree
}

// dumped is an image as `composefs-info dump` tells it, by path.
type dumped map[string]dumpLine

// dumpLine is what a dump has of a name, and node has not.
type dumpLine struct {
	node
	object string // path of the object
	digest string // the object's fs-verity digest
	inline string // content, if it is in the image
}

// dump reads an image with composefs-info.
func (b *bench) dump(cfs string) dumped {
	b.Helper()
	d := dumped{}
	lines := bufio.NewScanner(strings.NewReader(b.tool("composefs-info", "dump", cfs)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, line, err := parseDump(lines.Text())
		if err != nil {
			b.Fatalf("composefs-info says %q: %v", lines.Text(), err)
		}
		d[name] = line
	}
	if err := lines.Err(); err != nil {
		b.Fatal(err)
	}
	return d
}

// parseDump reads a line of a dump: path, size, mode, links, owner, group, device, time, payload (link target or
// object), inline content, digest, attributes.
func parseDump(text string) (string, dumpLine, error) {
	fields := strings.Split(text, " ")
	if len(fields) < 11 {
		return "", dumpLine{}, errors.New("too few fields")
	}
	var l dumpLine
	var failed error
	number := func(s string, base int) uint64 {
		n, err := strconv.ParseUint(s, base, 64)
		failed = errors.Join(failed, err)
		return n
	}
	text8 := func(s string) string {
		plain, err := unescape(s)
		failed = errors.Join(failed, err)
		return plain
	}
	l.Mode = uint32(number(fields[2], 8))
	l.Nlink = number(fields[3], 10)
	l.UID, l.GID = uint32(number(fields[4], 10)), uint32(number(fields[5], 10))
	l.Rdev = number(fields[6], 10)
	l.Mtime = fields[7]
	payload := text8(fields[8])
	l.inline, l.digest = text8(fields[9]), text8(fields[10])
	switch l.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		l.Size, l.object = int64(number(fields[1], 10)), payload
	case unix.S_IFLNK:
		l.Size, l.Target = int64(number(fields[1], 10)), payload
	}
	l.Xattrs = map[string]string{}
	for _, field := range fields[11:] {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return "", l, fmt.Errorf("attribute %q has no value", field)
		}
		l.Xattrs[text8(name)] = text8(value)
	}
	name := strings.TrimPrefix(text8(fields[0]), "/")
	if name == "" {
		name = "."
	}
	return name, l, failed
}

// unescape reads a field of a dump; "-" alone is an empty one.
func unescape(s string) (string, error) {
	if s == "-" {
		return "", nil
	}
	var plain strings.Builder
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, `\`)
		plain.WriteString(before)
		if !found {
			break
		}
		if after == "" {
			return "", fmt.Errorf("%q ends in a backslash", s)
		}
		c := after[0]
		rest = after[1:]
		if i := strings.IndexByte(`\nrt`, c); i >= 0 {
			plain.WriteByte("\\\n\r\t"[i])
			continue
		}
		if c != 'x' || len(rest) < 2 {
			return "", fmt.Errorf("%q is escaped in an unknown way", s)
		}
		b, err := hex.DecodeString(rest[:2])
		if err != nil {
			return "", err
		}
		plain.Write(b)
		rest = rest[2:]
	}
	return plain.String(), nil
}

// nodes completes a dump with the contents of its objects.
func (d dumped) nodes(t *testing.T, objects string) map[string]node {
	t.Helper()
	sums := map[string]string{"": emptySum}
	tree := map[string]node{}
	for name, l := range d {
		n := l.node
		if n.Mode&unix.S_IFMT == unix.S_IFREG {
			if _, ok := sums[l.object]; !ok {
				sum, err := sumFile(filepath.Join(objects, l.object))
				if err != nil {
					t.Fatal(err)
				}
				sums[l.object] = sum
			}
			n.Content = sums[l.object]
		}
		tree[name] = n
	}
	return tree
}

// emptySum is the sha256 of nothing.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// onDisk turns what stat tells into what is stored: a dump knows inodes by their link counts only, and device numbers
// in the kernel's encoding.
func onDisk(tree map[string]node) map[string]node {
	stored := maps.Clone(tree)
	for name, n := range stored {
		major, minor := unix.Major(n.Rdev), unix.Minor(n.Rdev)
		n.Rdev = uint64(minor&0xff | major<<8 | minor&^0xff<<12)
		n.First = ""
		stored[name] = n
	}
	return stored
}

// sameListing compares `composefs-info ls` with the dump: each path, with the same object.
func (b *bench) sameListing(t *testing.T, s staged, d dumped) {
	t.Helper()
	listed := 0
	for line := range strings.Lines(b.tool("composefs-info", "ls", s.cfs())) {
		escaped, payload, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		name, err := unescape(escaped)
		if err != nil {
			t.Fatal(err)
		}
		name = strings.Trim(name, "/")
		object, _ := strings.CutPrefix(payload, "@ ")
		if object == payload {
			object = ""
		}
		l, ok := d[name]
		if !ok || l.object != object {
			t.Errorf("composefs-info lists %q with object %q, and dumps it with %q", name, object, l.object)
		}
		listed++
	}
	if listed != len(d)-1 { // all but the root itself
		t.Errorf("composefs-info lists %d paths and dumps %d", listed, len(d)-1)
	}
}

// checkObjects expects the store to have exactly the objects that the image names, each under the fs-verity digest that
// composefs-info finds it to have.
func (b *bench) checkObjects(t *testing.T, s staged, d dumped) {
	t.Helper()
	named := map[string]bool{}
	for name, l := range d {
		if l.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if l.inline != "" || (l.object == "") != (l.Size == 0) {
			t.Errorf("%q of %d bytes has object %q and inline content %q", name, l.Size, l.object, l.inline)
		}
		if strings.Replace(l.object, "/", "", 1) != l.digest {
			t.Errorf("%q: object %s should have the digest %s", name, l.object, l.digest)
		}
		if l.object != "" {
			named[l.object] = true
		}
	}
	listed := strings.Fields(b.tool("composefs-info", "objects", s.cfs()))
	if want := slices.Sorted(maps.Keys(named)); !slices.Equal(slices.Sorted(slices.Values(listed)), want) {
		t.Errorf("composefs-info lists %d objects and dumps %d", len(listed), len(want))
	}
	if missing := b.tool("composefs-info", "--basedir="+s.objects(), "missing-objects", s.cfs()); missing != "" {
		t.Errorf("objects are missing: %s", missing)
	}
	stored, err := filepath.Glob(s.objects() + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(stored) != len(named) || len(stored) < 5000 {
		t.Errorf("the store has %d objects, the image names %d", len(stored), len(named))
	}
	for batch := range slices.Chunk(stored, 2000) {
		digests := strings.Fields(b.tool("composefs-info", append([]string{"measure-file"}, batch...)...))
		if len(digests) != len(batch) {
			t.Fatalf("composefs-info measured %d of %d files", len(digests), len(batch))
		}
		for i, path := range batch {
			shard, name := filepath.Split(path)
			if filepath.Base(shard)+name != digests[i] {
				t.Errorf("object %s has the digest %s", path, digests[i])
			}
		}
	}
}

// inlined is up to which size mkcomposefs puts a file into the image.
const inlined = 64

// samePeerImage compares our image with one that mkcomposefs made of the tree that umoci unpacked.
func (b *bench) samePeerImage(t *testing.T, ours, theirs dumped) {
	t.Helper()
	got, want := map[string]node{}, map[string]node{}
	objects := 0
	for name, l := range ours {
		peer := theirs[name]
		switch {
		case l.Mode&unix.S_IFMT != unix.S_IFREG:
		case l.Size > inlined:
			objects++
			if l.object != peer.object || l.digest != peer.digest {
				t.Errorf("%q has object %q, mkcomposefs names %q", name, l.object, peer.object)
			}
		case int64(len(peer.inline)) != l.Size:
			t.Errorf("%q has %d bytes, mkcomposefs has %q", name, l.Size, peer.inline)
		}
		l.Nlink = 0 // mkcomposefs does not look for hard links
		got[name] = l.node
	}
	for name, l := range theirs {
		l.Nlink = 0
		want[name] = l.node
	}
	if objects < 5000 {
		t.Errorf("only %d objects were compared", objects)
	}
	sameTree(t, withoutLabels(t, got), want)
}

// oddImage makes an image of a whole server, in a zstd layer, and of layers with all that is odd, in gzip and as they
// are; "latest" in an OCI layout.
func (b *bench) oddImage() string {
	b.Helper()
	tree, err := lab.V2(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	server, err := b.publisher.Layout(b.Context(), tree)
	if err != nil {
		b.Fatal(err)
	}
	layout := filepath.Join(b.dir, "layout")
	b.tool("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-compress-format", "zstd", "--dest-compress-level", "1",
		"oci:"+server+":latest", "oci:"+layout+":latest")
	for name, layer := range map[string][]byte{"gzip": b.oddLayer(), "none": changingLayer(b.T)} {
		_ = name
		_ = layer
	}
	return layout
}
