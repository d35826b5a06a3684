package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/verify"
)

// ent is an entry of a layer.
type ent struct {
	tar.Header
	body string
}

func file(name, body string) ent {
	return ent{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func dir(name string) ent {
	return ent{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700}, ""}
}

func symlink(name, target string) ent {
	return ent{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, ""}
}

func link(name, target string) ent {
	return ent{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func special(typ byte, name string, major, minor int64) ent {
	return ent{tar.Header{Typeflag: typ, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor}, ""}
}

func (e ent) with(change func(*tar.Header)) ent {
	change(&e.Header)
	return e
}

func (e ent) xattr(name, value string) ent {
	return e.with(func(h *tar.Header) {
		h.Format = tar.FormatPAX
		h.PAXRecords = map[string]string{xattrRecord + name: value}
	})
}

// pack writes a layer.
func pack(t testing.TB, entries ...ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// objects is a Putter that remembers contents.
type objects map[fsverity.Digest]string

func (o objects) put(r io.Reader, size int64) (fsverity.Digest, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return fsverity.Digest{}, err
	}
	d := fsverity.Sum(data)
	o[d] = string(data)
	return d, nil
}

// apply applies layers and lists the resulting tree. It does so twice, from the archives and by what they contain, and
// both must have the same result.
func apply(t testing.TB, layers ...[]byte) ([]string, error) {
	t.Helper()
	tree, again, content := NewTree(), NewTree(), objects{}
	for _, l := range layers {
		err := tree.Add(bytes.NewReader(l), content.put)
		replayed := again.Replay(entriesOf(t, l))
		if fmt.Sprint(err) != fmt.Sprint(replayed) || errors.Is(err, ErrLimit) != errors.Is(replayed, ErrLimit) {
			t.Errorf("the archive: %v; its entries: %v", err, replayed)
		}
		if err != nil {
			return nil, err
		}
	}
	got := list(tree, content)
	if replayed := list(again, content); !slices.Equal(got, replayed) {
		t.Errorf("from the archives\n%q\nby their entries\n%q", got, replayed)
	}
	if !reflect.DeepEqual(tree, again) {
		t.Error("the trees differ in attributes")
	}
	return got, nil
}

// entriesOf reads the entries of an archive, hostile ones too.
func entriesOf(t testing.TB, archive []byte) iter.Seq2[Noted, error] {
	t.Helper()
	return func(yield func(Noted, error) bool) {
		r := tar.NewReader(bytes.NewReader(archive))
		for {
			hdr, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
				t.Error(err)
				return
			}
			e := Noted{Header: hdr}
			if data, err := io.ReadAll(r); err != nil {
				t.Error(err)
			} else if len(data) > 0 {
				e.Object = fsverity.Sum(data)
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// TestReplayWithoutObject: what does not say where the content of a file is must not make a file without content.
func TestReplayWithoutObject(t *testing.T) {
	hdr := file("a", "content").Header
	err := NewTree().Replay(func(yield func(Noted, error) bool) { yield(Noted{Header: &hdr}, nil) })
	if !errors.Is(err, ErrLayer) || !strings.Contains(err.Error(), "no object") {
		t.Errorf("got %v", err)
	}
}

// TestReplayThatEnds: an error in the middle is no shorter layer.
func TestReplayThatEnds(t *testing.T) {
	hdr, broken := file("a", "").Header, errors.New("broken")
	err := NewTree().Replay(func(yield func(Noted, error) bool) {
		_ = yield(Noted{Header: &hdr}, nil) && yield(Noted{}, broken)
	})
	if err != broken {
		t.Errorf("got %v", err)
	}
}

// list describes a tree in words. Names of the same inode have the same letter.
func list(tree *Tree, content objects) []string {
	var lines []string
	shared := map[*Inode]int{}
	tree.Walk(func(_ string, n *Inode) error { shared[n]++; return nil })
	letters := map[*Inode]string{}
	tree.Walk(func(path string, n *Inode) error {
		what := ""
		switch n.Type() {
		case unix.S_IFDIR:
			what = fmt.Sprintf("dir %o", n.Mode&0o7777)
		case unix.S_IFREG:
			what = "file " + content[n.Object]
		case unix.S_IFLNK:
			what = "-> " + n.Target
		default:
			what = fmt.Sprintf("special %o %d:%d", n.Type(), n.Major, n.Minor)
		}
		if shared[n] > 1 {
			if letters[n] == "" {
				letters[n] = string(rune('A' + len(letters)))
			}
			what += " =" + letters[n]
		}
		if path != "" {
			lines = append(lines, path+" "+what)
		}
		return nil
	})
	return lines
}

func TestTree(t *testing.T) {
	type layers [][]ent
	for _, c := range []struct {
		name   string
		layers layers
		want   []string
	}{
		{"names are normalised", layers{{dir("./"), file("/a", "1"), file("./b//c", "2"), dir("d/")}},
			[]string{"a file 1", "b dir 755", "b/c file 2", "d dir 700"}},
		{"a later layer replaces", layers{{file("a", "1"), file("b", "1")}, {file("a", "2")}},
			[]string{"a file 2", "b file 1"}},
		{"directory over directory merges",
			layers{{dir("d"), file("d/a", "1")},
				{dir("d").with(func(h *tar.Header) { h.Mode = 0o755 }), file("d/b", "2")}},
			[]string{"d dir 755", "d/a file 1", "d/b file 2"}},
		{"file over directory removes it all", layers{{file("d/a", "1")}, {file("d", "2")}}, []string{"d file 2"}},
		{"directory over file", layers{{file("d", "1")}, {dir("d"), file("d/a", "2")}},
			[]string{"d dir 700", "d/a file 2"}},
		{"directory over symlink replaces the link", layers{{dir("real"), symlink("d", "real")}, {dir("d")}},
			[]string{"d dir 700", "real dir 700"}},

		{"whiteout of a file", layers{{file("a", "1"), file("b", "1")}, {file(".wh.a", "")}}, []string{"b file 1"}},
		{"whiteout of a directory", layers{{file("d/e/a", "1"), file("b", "1")}, {file(".wh.d", "")}},
			[]string{"b file 1"}},
		{"whiteout of nothing", layers{{file("a", "1")}, {file(".wh.b", ""), file("no/.wh.c", "")}},
			[]string{"a file 1"}},
		{"whiteout before what replaces it", layers{{file("a", "1")}, {file(".wh.a", ""), file("a", "2")}},
			[]string{"a file 2"}},
		{"whiteout after what replaces it", layers{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}},
			[]string{"a file 2"}},
		{"whiteout does not reach its own layer", layers{{file("a", "1"), file(".wh.a", "")}}, []string{"a file 1"}},
		{"whiteout of a directory after its new content",
			layers{{dir("d"), file("d/old", "1")}, {file("d/new", "2"), file(".wh.d", "")}},
			[]string{"d dir 755", "d/new file 2"}},
		{"whiteout of a directory before its new content",
			layers{{dir("d"), file("d/old", "1")}, {file(".wh.d", ""), file("d/new", "2")}},
			[]string{"d dir 755", "d/new file 2"}},
		{"whiteout of a directory described again",
			layers{{dir("d"), file("d/old", "1")}, {dir("d"), file(".wh.d", "")}},
			[]string{"d dir 700"}},
		{"whiteout through a linked parent",
			layers{{file("usr/lib/a", "1"), symlink("lib", "usr/lib")}, {file("lib/.wh.a", "")}},
			[]string{"lib -> usr/lib", "usr dir 755", "usr/lib dir 755"}},
		{"whiteout of a whiteout's name", layers{{file("wh.a", "1")}, {file(".wh.wh.a", "")}}, nil},

		{"opaque first", layers{{dir("d"), file("d/a", "1"), file("d/e/b", "1")},
			{file("d/.wh..wh..opq", ""), file("d/e/c", "2")}},
			[]string{"d dir 700", "d/e dir 755", "d/e/c file 2"}},
		{"opaque last", layers{{dir("d"), file("d/a", "1"), dir("d/e"), file("d/e/b", "1")},
			{file("d/e/c", "2"), file("d/.wh..wh..opq", "")}},
			[]string{"d dir 700", "d/e dir 755", "d/e/c file 2"}},
		{"opaque keeps what the layer describes",
			layers{{dir("d/e"), file("d/e/b", "1")}, {dir("d/e"), file("d/.wh..wh..opq", "")}},
			[]string{"d dir 755", "d/e dir 700"}},
		{"opaque where nothing is", layers{{file("a", "1")}, {file("d/.wh..wh..opq", "")}}, []string{"a file 1"}},
		{"opaque root", layers{{file("a", "1")}, {file(".wh..wh..opq", ""), file("b", "2")}}, []string{"b file 2"}},
		{"bookkeeping of aufs", layers{{file(".wh..wh.aufs", ""), file(".wh..wh.plnk/1.2", "x"), file("a", "1")}},
			[]string{"a file 1"}},

		{"hard links share an inode", layers{{file("a", "1"), link("b", "a"), link("d/c", "/b")}},
			[]string{"a file 1 =A", "b file 1 =A", "d dir 755", "d/c file 1 =A"}},
		{"replacing one name leaves the others",
			layers{{file("a", "1"), link("b", "a"), link("c", "a")}, {file("a", "2")}},
			[]string{"a file 2", "b file 1 =A", "c file 1 =A"}},
		{"removing one name leaves the other", layers{{file("a", "1"), link("b", "a")}, {file(".wh.a", "")}},
			[]string{"b file 1"}},
		{"link to a lower layer's file", layers{{file("a", "1")}, {link("b", "./a")}},
			[]string{"a file 1 =A", "b file 1 =A"}},
		{"link to a symbolic link is not followed", layers{{symlink("l", "nowhere"), link("b", "l")}},
			[]string{"b -> nowhere =A", "l -> nowhere =A"}},
		{"link target below a linked parent",
			layers{{file("usr/lib/a", "1"), symlink("lib", "/usr/lib"), link("b", "lib/a")}},
			[]string{"b file 1 =A", "lib -> /usr/lib", "usr dir 755", "usr/lib dir 755", "usr/lib/a file 1 =A"}},
		{"link onto itself", layers{{file("a", "1"), link("a", "a")}}, []string{"a file 1"}},
		{"link to a device", layers{{special(tar.TypeChar, "n", 1, 3), link("m", "n")}},
			[]string{"m special 20000 1:3 =A", "n special 20000 1:3 =A"}},

		{"parent is a link of a lower layer",
			layers{{dir("usr/lib"), symlink("lib", "usr/lib")}, {file("lib/a", "1")}},
			[]string{"lib -> usr/lib", "usr dir 755", "usr/lib dir 700", "usr/lib/a file 1"}},
		{"parent is an absolute link", layers{{dir("usr/lib"), symlink("lib", "/usr/lib"), file("lib/a", "1")}},
			[]string{"lib -> /usr/lib", "usr dir 755", "usr/lib dir 700", "usr/lib/a file 1"}},
		{"link that climbs stays inside", layers{{symlink("out", "../../../etc"), file("out/a", "1")}},
			[]string{"etc dir 755", "etc/a file 1", "out -> ../../../etc"}},
		{"link to a link", layers{{symlink("a", "b/./c/.."), symlink("b", "d"), file("a/x", "1")}},
			[]string{"a -> b/./c/..", "b -> d", "d dir 755", "d/c dir 755", "d/x file 1"}},
		{"dangling parent is made", layers{{symlink("a", "new/place"), file("a/x", "1")}},
			[]string{"a -> new/place", "new dir 755", "new/place dir 755", "new/place/x file 1"}},

		{"devices and fifos",
			layers{{special(tar.TypeChar, "c", 1, 3), special(tar.TypeBlock, "b", 259, 70000),
				special(tar.TypeFifo, "f", 0, 0), special(tar.TypeBlock, "z", 0, 0)}},
			[]string{"b special 60000 259:70000", "c special 20000 1:3", "f special 10000 0:0",
				"z special 60000 0:0"}},
		{"empty file", layers{{file("a", "")}}, []string{"a file "}},
		{"global header", layers{{ent{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax",
			PAXRecords: map[string]string{"comment": "x"}}, ""}, file("a", "1")}}, []string{"a file 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var packed [][]byte
			for _, l := range c.layers {
				packed = append(packed, pack(t, l...))
			}
			got, err := apply(t, packed...)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

func TestHostileEntries(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, c := range []struct {
		name  string
		entry []ent
		want  error
	}{
		{"dot-dot", []ent{file("../a", "1")}, ErrLayer},
		{"dot-dot inside", []ent{file("a/../../b", "1")}, ErrLayer},
		{"dot-dot in a hard link", []ent{file("a", "1"), link("b", "../a")}, ErrLayer},
		{"new line in a name", []ent{file("a\nb", "1")}, ErrLayer},
		{"new line in a hard link", []ent{file("a", "1"), link("b", "a\n")}, ErrLayer},
		{"root as a link", []ent{symlink("./", "/etc")}, ErrLayer},
		{"root as a file", []ent{file(".", "1")}, ErrLayer},
		{"hard link to nothing", []ent{link("a", "b")}, ErrLayer},
		{"hard link to a directory", []ent{dir("d"), link("a", "d")}, ErrLayer},
		{"hard link to the root", []ent{link("a", "/")}, ErrLayer},
		{"empty symbolic link", []ent{symlink("a", "")}, ErrLayer},
		{"loop of links as parent", []ent{symlink("a", "b"), symlink("b", "a"), file("a/x", "1")}, ErrLayer},
		{"link to itself as parent", []ent{symlink("a", "a/a"), file("a/x", "1")}, ErrLayer},
		{"parent is a file", []ent{file("a", "1"), file("a/b", "2")}, ErrLayer},
		{"parent's parent is a file", []ent{file("a", "1"), file("a/b/c", "2")}, ErrLayer},
		{"parent is a link to a file", []ent{file("f", "1"), symlink("a", "f"), file("a/b", "2")}, ErrLayer},
		{"overlayfs whiteout", []ent{special(tar.TypeChar, "a", 0, 0)}, ErrLayer},
		{"overlayfs redirect", []ent{file("a", "1").xattr("trusted.overlay.redirect", "/00/00")}, ErrLayer},
		{"overlayfs metacopy", []ent{file("a", "").xattr("trusted.overlay.metacopy", "")}, ErrLayer},
		{"overlayfs opaque on the root", []ent{dir("./").xattr("trusted.overlay.opaque", "y")}, ErrLayer},
		{"device number", []ent{special(tar.TypeBlock, "a", 5000, 1)}, ErrLayer},
		{"minor number", []ent{special(tar.TypeBlock, "a", 1, 1<<20)}, ErrLayer},
		{"owner", []ent{file("a", "").with(func(h *tar.Header) { h.Uid = 1<<32 - 1 })}, ErrLayer},
		{"group", []ent{file("a", "").with(func(h *tar.Header) { h.Gid = 1 << 40 })}, ErrLayer},
		{"unknown type", []ent{file("a", "").with(func(h *tar.Header) { h.Typeflag = 'Q' })}, ErrLayer},
		{"whiteout of no name", []ent{file("d/.wh.", "")}, ErrLayer},
		{"whiteout of itself", []ent{file("d/.wh..", "")}, ErrLayer},
		{"whiteout of the parent", []ent{file("d/.wh...", "")}, ErrLayer},
		{"below a whiteout", []ent{file(".wh.d/a", "1")}, ErrLayer},
		{"name", []ent{file(long, "1")}, ErrLimit},
		{"name of an implied directory", []ent{file(long+"/a", "1")}, ErrLimit},
		{"path", []ent{file(strings.Repeat("d/", 2100)+"a", "1")}, ErrLimit},
		{"path by way of links", []ent{
			file(strings.Repeat("d/", 1500)+"a", "1"), symlink("s", strings.Repeat("d/", 1500)),
			file("s/"+strings.Repeat("e/", 1500)+"a", "1"),
		}, ErrLimit},
		{"symbolic link's target", []ent{symlink("a", strings.Repeat("t", 4096))}, ErrLimit},
		{"attribute's value", []ent{file("a", "").xattr("user.big", strings.Repeat("v", 1<<16))}, ErrLimit},
		{"attribute's name", []ent{file("a", "").xattr("user."+long, "v")}, ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := apply(t, pack(t, c.entry...))
			if !errors.Is(err, c.want) || !errors.Is(err, ErrLayer) || !errors.Is(err, verify.ErrMalformed) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want == ErrLayer && errors.Is(err, ErrLimit) {
				t.Errorf("refused for the wrong reason: %v", err)
			}
		})
	}
}

// Some bounds would need too much input to be reached, so the tree begins with most of the allowance used up.
func TestBoundsOfTheWholeImage(t *testing.T) {
	for _, c := range []struct {
		name string
		use  func(*Tree)
		e    ent
	}{
		{"entries", func(t *Tree) { t.entries = maxEntries }, file("a", "")},
		{"metadata", func(t *Tree) { t.metadata = maxMetadata - 3 }, file("a", "").xattr("user.a", "b")},
		{"content", func(t *Tree) { t.content = maxContent - 1 }, file("a", "12")},
	} {
		tree := NewTree()
		c.use(tree)
		if err := tree.Add(bytes.NewReader(pack(t, c.e)), objects{}.put); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %v, want %v", c.name, err, ErrLimit)
		}
	}
	tree := NewTree()
	n := &Inode{Mode: unix.S_IFREG, Size: maxFile + 1}
	if err := tree.putContent(n, nil, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("file size: got %v, want %v", err, ErrLimit)
	}
}

func TestAttributes(t *testing.T) {
	when := time.Unix(1700000000, 123456789)
	e := file("a", "x").with(func(h *tar.Header) {
		h.Format, h.Mode, h.Uid, h.Gid, h.ModTime = tar.FormatPAX, 0o6755, 3000000000, 70000, when
		h.PAXRecords = map[string]string{
			xattrRecord + "security.capability":     "\x01\x00\x00\x02",
			xattrRecord + "security.selinux":        "system_u:object_r:bin_t:s0\x00",
			xattrRecord + "system.posix_acl_access": "\x02\x00\x00\x00",
			xattrRecord + "user.note":               "line\nline",
			xattrRecord + "trusted.mine":            "1",
			xattrRecord + "com.apple.provenance":    "not storable",
			xattrRecord + "system.nfs4_acl":         "not storable",
			"SCHILY.other":                          "no attribute",
		}
	})
	tree := NewTree()
	if err := tree.Add(bytes.NewReader(pack(t, e)), objects{}.put); err != nil {
		t.Fatal(err)
	}
	n := tree.Lookup("/a")
	if n == nil || n.Mode != unix.S_IFREG|0o6755 || n.UID != 3000000000 || n.GID != 70000 ||
		n.Mtime != when.Unix() || n.MtimeNs != 123456789 {
		t.Fatalf("got %+v", n)
	}
	if len(n.Xattrs) != 5 || n.Xattrs["security.selinux"] != "system_u:object_r:bin_t:s0\x00" ||
		n.Xattrs["user.note"] != "line\nline" {
		t.Errorf("attributes: %q", n.Xattrs)
	}
}

func TestSparseFiles(t *testing.T) {
	// GNU tar 1.34 --format=posix (version 1.0) writes them like this: a map at the beginning of the data, then the
	// pieces.
	const size = 1 << 20
	sparseMap := "2\n0\n3\n1048573\n3\n"
	body := sparseMap + strings.Repeat("\x00", 512-len(sparseMap)) + "abcdef"
	e := ent{tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/s", Mode: 0o644, Size: int64(len(body))}, body}
	raw := packSparse(t, e, map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s",
		"GNU.sparse.realsize": fmt.Sprint(size),
	})
	content := objects{}
	tree := NewTree()
	if err := tree.Add(bytes.NewReader(raw), content.put); err != nil {
		t.Fatal(err)
	}
	n := tree.Lookup("s")
	if n == nil || n.Size != size {
		t.Fatalf("got %+v", n)
	}
	want := "abc" + strings.Repeat("\x00", size-6) + "def"
	if content[n.Object] != want {
		t.Error("content differs")
	}
}

// packSparse writes an entry with PAX records that archive/tar refuses to write.
func packSparse(t *testing.T, e ent, records map[string]string) []byte {
	t.Helper()
	var pax strings.Builder
	for k, v := range records {
		line := fmt.Sprintf(" %s=%s\n", k, v)
		n := len(line) + 2
		if n > 99 || len(fmt.Sprint(n)) != 2 {
			t.Fatalf("record of %d bytes", n)
		}
		fmt.Fprintf(&pax, "%d%s", n, line)
	}
	header := pack(t, ent{tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(pax.Len())}, pax.String()})
	header = header[:len(header)-1024]
	header[156] = tar.TypeXHeader
	sum := 0
	for i, b := range header[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(header, pack(t, e)...)
}

func TestLookupFollowsLinks(t *testing.T) {
	tree := NewTree()
	raw := pack(t, file("usr/lib/os-release", "ID=x"), symlink("etc/os-release", "../usr/lib/os-release"),
		symlink("loop", "loop"))
	if err := tree.Add(bytes.NewReader(raw), objects{}.put); err != nil {
		t.Fatal(err)
	}
	if n := tree.Lookup("/etc/os-release"); n == nil || !n.IsRegular() {
		t.Errorf("got %+v", n)
	}
	for _, path := range []string{"loop", "no/such", "usr/lib/os-release/x"} {
		if n := tree.Lookup(path); n != nil {
			t.Errorf("%s: got %+v", path, n)
		}
	}
}
