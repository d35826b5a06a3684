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
// server and, in further layers, on every unusual thing that a file system can hold. The root is read in four ways: as
// the kernel mounts it (EROFS, with the objects below by overlayfs), as mount.composefs mounts it, as composefs-info
// reads the image without mounting it, and in comparison with the image that mkcomposefs makes of umoci's tree.
//
// Type, mode, owner, size, time to the nanosecond, link target, device number, every extended attribute, content and
// the names of each inode have to be the same for every path. All exceptions:
//
//   - security.selinux and attributes with an empty value: umoci leaves out the former deliberately, and the latter
//     because its tar reader takes them for none. Our root must have them as in the layer.
//   - The link count of mounted directories: overlayfs reports 1 for all. The image has the true count, as
//     composefs-info shows, and that is compared.
//   - The sizes of directories, which each file system defines in its own way.
//
// Hard links are no exception: an EROFS directory entry is a name and an inode number, so the format supports them,
// although go-erofs cannot write them and mkcomposefs does not detect them.
func TestSameTree(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	layout := b.oddImage()
	b.sign(layout)
	store := b.stage("oci:" + layout + ":latest")

	bundle := filepath.Join(b.dir, "umoci")
	b.tool("umoci", "unpack", "--image", layout+":latest", bundle)
	rootfs := filepath.Join(bundle, "rootfs")
	theirs := readTree(t, rootfs)
	if len(theirs) < 8000 {
		t.Fatalf("umoci unpacked only %d names, too few for a server", len(theirs))
	}
	checkOdd(t, theirs)
	t.Logf("%d names to compare", len(theirs))

	t.Run("kernel", func(t *testing.T) {
		sameTree(t, withoutExceptions(t, readTree(t, store.mount(t))), theirs)
	})
	t.Run("mount.composefs", func(t *testing.T) {
		target := filepath.Join(b.dir, "mounted")
		if err := os.Mkdir(target, 0o755); err != nil {
			t.Fatal(err)
		}
		b.tool("mount.composefs", "-o", "ro,basedir="+store.objects(), store.cfs(), target)
		seen := filepath.Join(b.tools, target) // the cache is mounted inside the tree of tools
		t.Cleanup(func() {
			if err := unix.Unmount(seen, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		sameTree(t, withoutExceptions(t, readTree(t, seen)), theirs)
	})
	t.Run("composefs-info", func(t *testing.T) {
		dump := b.dump(store.cfs())
		sameTree(t, withoutExceptions(t, dump.nodes(t, store.objects())), onDisk(theirs))
		b.sameListing(t, store, dump)
		b.run(exitDone, "updatectl", "--root", store.host, "gc") // removes the objects of files that upper layers hide
		b.checkObjects(t, store, dump)
	})
	t.Run("mkcomposefs", func(t *testing.T) {
		// The digests of the two images differ: mkcomposefs puts files of up to 64 bytes into the image, makes an
		// inode for every name, and lays out attributes and holes in another way. Their content must be the same.
		image := filepath.Join(b.dir, "theirs.cfs")
		b.tool("mkcomposefs", rootfs, image)
		b.samePeerImage(t, b.dump(store.cfs()), b.dump(image))
	})
}

// bench is what tests of images need: a publisher with other people's tools, and a directory to work in. There is no
// host: updatectl works on a tree, with --root.
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

// tool runs one of the tools and returns its output.
func (b *bench) tool(name string, args ...string) string {
	b.Helper()
	out, err := lab.Tool(b.Context(), b.tools, name, args...)
	if err != nil {
		b.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

// run runs a built program of the project, expects an exit code and returns the output.
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
		b.Fatalf("%s %s ended with %d, want %d\n%s%s", program, strings.Join(args, " "), got, code, stdout.Bytes(),
			stderr.Bytes())
	}
	return stdout.String()
}

// sign signs the image of a layout with releasectl.
func (b *bench) sign(layout string) {
	b.Helper()
	b.run(0, "releasectl", "sign", "--key", b.publisher.Key, "oci:"+layout+":latest")
}

// host makes a tree for updatectl --root that trusts the publisher, and returns its path.
func (b *bench) host(plainHTTP ...string) string {
	b.Helper()
	b.hosts++
	root := filepath.Join(b.dir, fmt.Sprintf("host-%d", b.hosts))
	dir := filepath.Join(root, "etc/updatectl")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"release.pub": b.publisher.Public,
		"updatectl.toml": fmt.Sprintf("[source]\nplain-http = [%s]\n[verify]\n"+
			"keys = [\"/etc/updatectl/release.pub\"]\n", quoted(plainHTTP)),
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
	s := staged{host: root, store: filepath.Join(root, "var/lib/updatectl")}
	roots, err := os.ReadDir(filepath.Join(s.store, "roots"))
	if err != nil || len(roots) != 1 {
		b.Fatalf("there are %d roots after one was staged (%v)", len(roots), err)
	}
	s.id = roots[0].Name()
	return s
}

// staged is a root in a store that has no other.
type staged struct{ host, store, id string }

func (s staged) objects() string { return filepath.Join(s.store, "objects") }
func (s staged) cfs() string     { return filepath.Join(s.store, "roots", s.id, "root.cfs") }

// mount mounts the root with the kernel's file systems, as docs/design.md describes it, and returns where.
func (s staged) mount(t *testing.T) string {
	t.Helper()
	meta, root := t.TempDir(), t.TempDir()
	for _, m := range []struct{ source, target, kind, options string }{
		{s.cfs(), meta, "erofs", ""},
		{"updatectl:" + s.id, root, "overlay", fmt.Sprintf("metacopy=on,redirect_dir=on,lowerdir=%s::%s", meta,
			s.objects())},
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

// node is everything that a program can find out about a name; trees are compared by it.
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
	First    string // the first name of the inode, if it has several
}

// readTree describes every name below a directory, "." being the directory.
func readTree(t *testing.T, dir string) map[string]node {
	t.Helper()
	tree := map[string]node{}
	inodes := map[string]uint64{}
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
			inodes[name] = ino
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
	joinNames(tree, inodes)
	return tree
}

// joinNames sets First of names that share an inode.
func joinNames[K comparable](tree map[string]node, inodes map[string]K) {
	first := map[K]string{}
	for _, name := range slices.Sorted(maps.Keys(inodes)) {
		if first[inodes[name]] == "" {
			first[inodes[name]] = name
		}
		n := tree[name]
		n.First = first[inodes[name]]
		tree[name] = n
	}
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

// addContents adds the digests of all regular files, several at a time.
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
		if g.Nlink == 0 || w.Nlink == 0 { // not known, as for a directory on an overlay
			g.Nlink, w.Nlink = 0, 0
		}
		switch {
		case !ok:
			t.Errorf("%q is missing", name)
		case !reflect.DeepEqual(g, w):
			t.Errorf("%q differs:%s", name, differences(g, w))
		default:
			continue
		}
		if differ++; differ > 20 {
			t.Fatal("and more")
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q should not be there", name)
		}
	}
}

// differences describes how two nodes differ.
func differences(got, want node) string {
	var text strings.Builder
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			fmt.Fprintf(&text, "\n%s: got %.300q, want %.300q", g.Type().Field(i).Name, fmt.Sprint(a), fmt.Sprint(b))
		}
	}
	return text.String()
}

const (
	labelled = "usr/share/odd/labelled"
	label    = "system_u:object_r:etc_t:s0\x00"
)

// withoutExceptions removes the attributes that umoci never unpacks, and expects each exactly where the image has it.
func withoutExceptions(t *testing.T, tree map[string]node) map[string]node {
	t.Helper()
	found := map[string]string{}
	for name, n := range tree {
		for _, attribute := range []string{"security.selinux", "user.empty"} {
			if value, ok := n.Xattrs[attribute]; ok {
				found[name+" "+attribute] = value
				delete(n.Xattrs, attribute)
			}
		}
	}
	want := map[string]string{labelled + " security.selinux": label, odd + "/attributed user.empty": ""}
	if !maps.Equal(found, want) {
		t.Errorf("the attributes that umoci leaves out are %q, want %q", found, want)
	}
	return tree
}

// dumped is the output of `composefs-info dump`, by path.
type dumped map[string]dumpLine

// dumpLine is one line of a dump.
type dumpLine struct {
	node
	object string // path of the object
	digest string // the object's fs-verity digest
	inline string // content, if it is in the image
	link   string // for a further name of an inode: its first name
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
	for name, l := range d {
		if l.link == "" {
			continue
		}
		target, ok := d[l.link]
		if !ok || target.link != "" {
			b.Fatalf("composefs-info says that %q is a link to %q, which does not exist or is a link, too", name,
				l.link)
		}
		target.link = l.link
		d[name] = target
	}
	return d
}

// parseDump parses a line of a dump: path, size, mode, links, owner, group, device, time, payload (link target or
// object), inline content, digest, attributes.
func parseDump(line string) (string, dumpLine, error) {
	fields := strings.Split(line, " ")
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
	plain := func(s string) string {
		text, err := unescape(s)
		failed = errors.Join(failed, err)
		return text
	}
	if _, linked := strings.CutPrefix(fields[2], "@"); linked { // the rest of the line repeats the first name's
		l.link = strings.TrimPrefix(plain(fields[8]), "/")
		name := strings.TrimPrefix(plain(fields[0]), "/")
		return name, l, failed
	}
	l.Mode = uint32(number(fields[2], 8))
	l.Nlink = number(fields[3], 10)
	l.UID, l.GID = uint32(number(fields[4], 10)), uint32(number(fields[5], 10))
	l.Rdev = number(fields[6], 10)
	sec, nsec, _ := strings.Cut(fields[7], ".") // not a fraction but a number of nanoseconds, without leading zeros
	l.Mtime = fmt.Sprintf("%s.%09d", sec, number(nsec, 10))
	payload := plain(fields[8])
	l.inline, l.digest = plain(fields[9]), plain(fields[10])
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
		l.Xattrs[plain(name)] = plain(value)
	}
	name := strings.TrimPrefix(plain(fields[0]), "/")
	if name == "" {
		name = "."
	}
	return name, l, failed
}

// unescape decodes a field of a dump; "-" is an empty one.
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

// nodes returns the nodes of a dump, with the digests of its objects' contents.
func (d dumped) nodes(t *testing.T, objects string) map[string]node {
	t.Helper()
	sums := map[string]string{"": emptySum}
	tree := map[string]node{}
	inodes := map[string]string{}
	for name, l := range d {
		n := l.node
		if l.link != "" {
			inodes[name], inodes[l.link] = l.link, l.link
		}
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
	joinNames(tree, inodes)
	return tree
}

// emptySum is the sha256 of nothing.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// onDisk converts what stat returns to what is stored: device numbers are in the kernel's encoding.
func onDisk(tree map[string]node) map[string]node {
	stored := maps.Clone(tree)
	for name, n := range stored {
		major, minor := unix.Major(n.Rdev), unix.Minor(n.Rdev)
		n.Rdev = uint64(minor&0xff | major<<8 | minor&^0xff<<12)
		stored[name] = n
	}
	return stored
}

// sameListing expects `composefs-info ls` to list every path of the dump with the same object.
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
		if l.link != "" {
			l.object = "" // for hard links, only the first name is listed with it
		}
		if !ok || l.object != object {
			t.Errorf("composefs-info lists %q with object %q, and dumps it with %q", name, object, l.object)
		}
		listed++
	}
	if listed != len(d)-1 { // the root itself is not listed
		t.Errorf("composefs-info lists %d paths and dumps %d", listed, len(d)-1)
	}
}

// checkObjects expects the store to have exactly the objects that the image names, each under the fs-verity digest
// that composefs-info measures.
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

// inlined is the size in bytes up to which mkcomposefs puts a file into the image.
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
		l.Nlink = 0 // mkcomposefs does not detect hard links
		got[name] = l.node
	}
	for name, l := range theirs {
		l.Nlink = 0
		want[name] = l.node
	}
	if objects < 5000 {
		t.Errorf("only %d objects were compared", objects)
	}
	sameTree(t, withoutExceptions(t, got), want)
}

// oddImage makes an image of a whole server, in a zstd layer, with further layers, in gzip and uncompressed, of
// everything unusual. It returns an OCI layout in which the image is "latest".
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
	b.tool("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-compress-format", "zstd",
		"--dest-compress-level", "1",
		"oci:"+server+":latest", "oci:"+layout+":latest")
	for _, l := range []struct {
		compression string
		tar         []byte
	}{
		{"gzip", b.oddLayer()},
		{"gzip", entryLayer(b.T)},
		{"none", changingLayer(b.T)},
	} {
		file := filepath.Join(b.dir, "layer.tar")
		if err := os.WriteFile(file, l.tar, 0o644); err != nil {
			b.Fatal(err)
		}
		b.tool("umoci", "raw", "add-layer", "--compress", l.compression, "--image", layout+":latest", file)
	}
	return layout
}

// odd is the directory with everything unusual.
const odd = "usr/share/odd"

// capNetRaw is a security.capability attribute of version 2: cap_net_raw, effective.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// accessList is a POSIX ACL in the kernel's encoding: rw for the owner, r for user 1000, the group and the mask.
const accessList = "\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// oddLayer returns a layer that GNU tar makes of a real tree: file types for which tar has special forms.
func (b *bench) oddLayer() []byte {
	b.Helper()
	top := filepath.Join(b.dir, "odd")
	dir := filepath.Join(top, odd)
	deep := filepath.Join(dir, strings.Repeat("a-rather-long-directory-name/", 12))
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	write := func(name, content string) string {
		b.Helper()
		path := filepath.Join(dir, name)
		check(os.MkdirAll(filepath.Dir(path), 0o755))
		check(os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	check(os.MkdirAll(deep, 0o755))
	check(os.WriteFile(filepath.Join(deep, strings.Repeat("n", 250)), []byte("long"), 0o600))
	check(os.Symlink(strings.Repeat("t/", 1000), filepath.Join(dir, "long-target")))
	write("comma, \\ and \xff = é", "")
	// around a block, and around what may be inlined
	for _, size := range []int{1, 64, 65, 4095, 4096, 4097, 1 << 20, 1<<20 + 1} {
		write(fmt.Sprintf("sizes/%d", size), strings.Repeat("s", size))
	}
	for i := range 3000 { // a directory with many blocks
		write(fmt.Sprintf("many/entry-%04d", i), "")
	}

	first := write("links/first", "linked")
	check(os.Link(first, filepath.Join(deep, "second")))
	check(os.Link(first, filepath.Join(dir, "links/third")))
	check(os.Symlink("first", filepath.Join(dir, "links/symlink")))
	check(os.Link(filepath.Join(dir, "links/symlink"), filepath.Join(dir, "links/symlink-too")))
	check(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o620))
	check(os.Link(filepath.Join(dir, "fifo"), filepath.Join(dir, "links/fifo-too")))
	check(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))

	for name, parts := range map[string][]int64{"sparse": {0, 3 << 20, 9 << 20}, "hole": nil} {
		f, err := os.Create(filepath.Join(dir, name))
		check(err)
		for _, at := range parts {
			_, err := f.WriteAt([]byte("part"), at)
			check(err)
		}
		check(f.Truncate(10<<20 + 77))
		check(f.Close())
	}
	attributed := write("attributed", "x")
	for name, value := range map[string]string{
		"user.note": "a\x00b\nc=d \\", "user.empty": "", "user.large": strings.Repeat("v", 2000), "trusted.mine": "1",
	} {
		check(unix.Setxattr(attributed, name, []byte(value), 0))
	}
	for i := range 20 {
		check(unix.Setxattr(deep, fmt.Sprintf("user.attribute-%d", i), []byte("value"), 0))
	}
	check(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		stamp := []unix.Timespec{{Sec: 1700000000}, {Sec: 1700000001, Nsec: 987654321}}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, stamp, unix.AT_SYMLINK_NOFOLLOW))
	}))
	cmd := exec.CommandContext(b.Context(), "tar", "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*",
		"--numeric-owner", "--sort=name", "-C", top, "-cf", "-", "./"+odd)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	check(err)
	return out
}

// entry returns an entry of a layer; a name that ends in a slash is a directory.
func entry(name string, change ...func(*tar.Header)) tar.Header {
	h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1600000000, 0),
		Format: tar.FormatPAX}
	if strings.HasSuffix(name, "/") {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	for _, c := range change {
		c(&h)
	}
	return h
}

func mode(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }

func owner(uid, gid int) func(*tar.Header) { return func(h *tar.Header) { h.Uid, h.Gid = uid, gid } }

func modified(sec, nsec int64) func(*tar.Header) {
	return func(h *tar.Header) { h.ModTime = time.Unix(sec, nsec) }
}

func linked(kind byte, target string) func(*tar.Header) {
	return func(h *tar.Header) { h.Typeflag, h.Linkname = kind, target }
}

func xattr(name, value string) func(*tar.Header) {
	return func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
}

// tarOf returns a layer in which every regular file has its own name as content.
func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg && !strings.Contains(h.Name, ".wh.") {
			content = h.Name
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// entryLayer returns a layer with attributes that files on a build machine never have, and with what the next layer
// changes.
func entryLayer(t *testing.T) []byte {
	const d = odd + "/entries/"
	return tarOf(t,
		entry(d),
		entry(d+"capable", mode(0o755), xattr("security.capability", capNetRaw)),
		entry(d+"access", mode(0o640), owner(3, 4), xattr("system.posix_acl_access", accessList)),
		entry(d+"default/", mode(0o2755), owner(100000, 3000000000), xattr("system.posix_acl_default", accessList)),
		entry(labelled, xattr("security.selinux", label)),
		entry(d+"su", mode(0o4755)),
		entry(d+"sgid", mode(0o2755)),
		entry(d+"sticky/", mode(0o1777)),
		entry(d+"secret", mode(0), owner(4294967294, 65536)),
		entry(d+"fine", modified(1600000000, 123456789)),
		entry(d+"old", modified(-86400, 0)),
		entry(d+"older", modified(-86401, 250000000)),
		entry(d+"new/", modified(1<<33, 0)),
		entry(d+"epoch", modified(0, 0)),
		entry(d+"symlink", linked(tar.TypeSymlink, "su"), xattr("trusted.mine", "on a link")),

		entry(d+"opaque/"), entry(d+"opaque/hidden"), entry(d+"opaque/below/"), entry(d+"opaque/below/hidden"),
		entry(d+"removed/"), entry(d+"removed/file"),
		entry(d+"described/", mode(0o700), xattr("user.old", "1")), entry(d+"described/kept"),
		entry(d+"file-to-directory"), entry(d+"directory-to-file/"), entry(d+"directory-to-file/hidden"),
		entry(d+"link-to-directory", linked(tar.TypeSymlink, "opaque")),
		entry(d+"absolute", linked(tar.TypeSymlink, "/"+odd+"/entries/default")),
		entry(d+"capable-too", linked(tar.TypeLink, d+"capable")),
	)
}

// changingLayer returns a layer that replaces, hides, removes and links what lower layers have, files of the server,
// too.
func changingLayer(t *testing.T) []byte {
	const d = odd + "/entries/"
	return tarOf(t,
		// Every changed directory has an entry: without one, the specification leaves its time open.
		entry("usr/share/"), entry("usr/share/i18n/"), entry(odd+"/"), entry(odd+"/links/"), entry(d),
		entry("usr/bin/"), entry("etc/"),
		entry("usr/share/i18n/.wh..wh..opq"), entry("usr/share/i18n/fresh"),
		entry("usr/share/.wh.common-licenses"), entry("etc/.wh.debian_version"),
		entry(d+"opaque/"), entry(d+"opaque/.wh..wh..opq"), entry(d+"opaque/fresh"),
		entry(d+".wh.removed"),
		entry(d+"described/", mode(0o750), owner(5, 6), xattr("user.new", "2")),
		entry(d+"file-to-directory/"), entry(d+"file-to-directory/file"),
		entry(d+"directory-to-file"),
		entry(d+"link-to-directory/"), entry(d+"link-to-directory/file"),
		entry(d+"absolute/through"), entry(d+"default/", mode(0o2755), owner(7, 8)),
		entry(odd+"/links/first", mode(0o600)), // its other names keep the old content
		entry(odd+"/links/fourth", linked(tar.TypeLink, odd+"/links/third")),
		entry("bin/through-the-link"), // /bin is a link to usr/bin
		entry("usr/bin/ping-too", linked(tar.TypeLink, "bin/ping")),
		entry("usr/bin/", modified(1600000001, 1)), entry("usr/share/", modified(1600000002, 1)),
	)
}

// checkOdd expects everything unusual to be in the tree, so that it is compared.
func checkOdd(t *testing.T, tree map[string]node) {
	t.Helper()
	seen := map[string]int{}
	count := func(what string, is bool) {
		if is {
			seen[what]++
		}
	}
	for name, n := range tree {
		seen[fmt.Sprintf("type %o", n.Mode&unix.S_IFMT)]++
		count("hard link", n.First != "" && n.First != name)
		count("linked symbolic link", n.First != "" && n.Target != "")
		count("long path", len(name) > 256)
		count("nanoseconds", !strings.HasSuffix(n.Mtime, ".000000000"))
		count("before 1970", strings.HasPrefix(n.Mtime, "-"))
		count("after 2106", len(n.Mtime) == len("8589934592.000000000") && n.Mtime > "4294967296")
		count("set-uid", n.Mode&unix.S_ISUID != 0)
		count("set-gid", n.Mode&unix.S_ISGID != 0)
		count("sticky", n.Mode&unix.S_ISVTX != 0)
		count("large owner", n.UID > 1<<16)
		for x := range n.Xattrs {
			seen[x]++
		}
	}
	for _, what := range []string{
		"type 40000", "type 100000", "type 120000", "type 20000", "type 60000", "type 10000",
		"hard link", "linked symbolic link", "long path", "nanoseconds", "before 1970", "after 2106",
		"set-uid", "set-gid", "sticky",
		"large owner", "security.capability", "system.posix_acl_access", "system.posix_acl_default",
		"user.note", "user.large", "trusted.mine", "user.attribute-19",
	} {
		if seen[what] == 0 {
			t.Errorf("the tree has nothing with %s to compare", what)
		}
	}
	for name, want := range map[string]bool{
		"usr/share/common-licenses": false, "etc/debian_version": false, odd + "/entries/removed": false,
		odd + "/entries/opaque/hidden": false, odd + "/entries/opaque/below": false, odd +
			"/entries/opaque/fresh": true,
		"usr/share/i18n/fresh": true, "usr/share/i18n/SUPPORTED": false, odd + "/entries/described/kept": true,
		"usr/bin/through-the-link": true, "usr/bin/ping-too": true, "usr/lib/systemd/systemd": true,
	} {
		if _, ok := tree[name]; ok != want {
			t.Errorf("umoci unpacked %s: %t, want %t", name, ok, want)
		}
	}
}
