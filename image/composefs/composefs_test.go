package composefs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

// build makes a tree of tar headers; content is the name.
func build(t *testing.T, headers ...tar.Header) *layer.Tree {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg && h.Size != 0 {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, h.Name[:h.Size])
	}
	w.Close()
	tree := layer.NewTree()
	err := tree.Add(&archive, func(r io.Reader, size int64) (fsverity.Digest, error) {
		data, err := io.ReadAll(r)
		return fsverity.Sum(data), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func write(t *testing.T, tree *layer.Tree) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "root.cfs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d, err := Write(f, tree)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil || d != fsverity.Sum(data) {
		t.Errorf("digest %s is not that of the file, %v", d, err)
	}
	return f
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1} }
func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// stat reads a name back.
func stat(t *testing.T, f io.ReaderAt, name string) *erofs.Stat {
	t.Helper()
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(img, path.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == path.Base(name) {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			return info.Sys().(*erofs.Stat)
		}
	}
	t.Fatalf("%s is missing", name)
	return nil
}

// Hard links in directories of every size: inline, of one block, of many.
func TestHardLinksShareAnInode(t *testing.T) {
	for _, neighbours := range []int{0, 50, 150, 3000} {
		t.Run(fmt.Sprint(neighbours), func(t *testing.T) {
			headers := []tar.Header{file("a/first"), link("b/m-second", "a/first"), link("a/third", "a/first"),
				{Typeflag: tar.TypeSymlink, Name: "sym", Linkname: "x"}, link("b/sym", "sym"), link("top", "a/first")}
			for i := range neighbours {
				headers = append(headers,
					file(fmt.Sprintf("b/%s-neighbour-with-a-name-%d", string(rune('a'+i%26)), i)))
			}
			f := write(t, build(t, headers...))
			first := stat(t, f, "a/first")
			if first.Nlink != 4 {
				t.Errorf("%d links, want 4", first.Nlink)
			}
			for _, name := range []string{"b/m-second", "a/third", "top"} {
				if s := stat(t, f, name); s.Ino != first.Ino || !s.Mode.IsRegular() {
					t.Errorf("%s is inode %d (%s), want %d", name, s.Ino, s.Mode, first.Ino)
				}
			}
			if a, b := stat(t, f, "sym"), stat(t, f, "b/sym"); a.Ino != b.Ino || a.Nlink != 2 {
				t.Errorf("symbolic link: inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
			}
			names := 0
			img, err := erofs.Open(f)
			if err != nil {
				t.Fatal(err)
			}
			fs.WalkDir(img, ".", func(string, fs.DirEntry, error) error { names++; return nil })
			if want := 9 + neighbours; names != want {
				t.Errorf("%d names, want %d", names, want)
			}
		})
	}
}

func TestObjects(t *testing.T) {
	empty := file("empty")
	empty.Size = 0
	f := write(t, build(t, file("a"), file("d/b"), link("c", "a"), empty))
	got := map[fsverity.Digest]int{}
	if err := Objects(f, func(d fsverity.Digest) { got[d]++ }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[fsverity.Sum([]byte("a"))] != 2 || got[fsverity.Sum([]byte("d/b"))] != 1 {
		t.Errorf("got %v", got)
	}
}

func TestObjectsRefusesOtherFiles(t *testing.T) {
	for _, content := range []string{"", "text", strings.Repeat("\x00", 8192)} {
		if err := Objects(strings.NewReader(content), nil); !errors.Is(err, ErrImage) {
			t.Errorf("%.10q: got %v, want %v", content, err, ErrImage)
		}
	}
}

func TestTheSameTreeGivesTheSameImage(t *testing.T) {
	headers := []tar.Header{file("a"), file("d/b"), link("c", "a"),
		{Typeflag: tar.TypeDir, Name: "e", Mode: 0o755, ModTime: time.Unix(5, 7), Format: tar.FormatPAX}}
	one := write(t, build(t, headers...))
	headers[0], headers[1] = headers[1], headers[0]
	two := write(t, build(t, headers...))
	a, _ := os.ReadFile(one.Name())
	b, _ := os.ReadFile(two.Name())
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("the order in the layer shows in the image")
	}
	if string(a[:8]) != "\x9a\x62\x78\xd0\x01\x00\x00\x00" {
		t.Errorf("header % x", a[:8])
	}
}
