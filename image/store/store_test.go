package store

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "lib", "updatectl"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// id returns a valid ID made from a digit.
func id(n int) string { return "sha256-" + strings.Repeat(fmt.Sprint(n), 64) }

// stage stages a root with files of these contents. The first one has two names.
func stage(t *testing.T, s *Store, id string, contents ...string) Root {
	t.Helper()
	var files []any
	for i, c := range contents {
		files = append(files, tar.Header{Name: fmt.Sprint("f", i)}, c)
	}
	return stageLayers(t, s, id,
		archive(t, append(files, tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: "f0"}, "")...))
}

// archive packs headers, each followed by its content.
func archive(t *testing.T, files ...any) io.Reader {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for i := 0; i < len(files); i += 2 {
		h, content := files[i].(tar.Header), files[i+1].(string)
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	w.Close()
	return &packed
}

// stageLayers stages a root from these layers.
func stageLayers(t *testing.T, s *Store, id string, layers ...io.Reader) Root {
	t.Helper()
	g, err := s.Begin(id)
	if err != nil {
		t.Fatal(err)
	}
	return commit(t, g, layers...)
}

// commit stages a root that was begun from these layers.
func commit(t *testing.T, g *Staging, layers ...io.Reader) Root {
	t.Helper()
	tree := layer.NewTree()
	for _, l := range layers {
		if err := tree.Add(l, g.Put); err != nil {
			t.Fatal(err)
		}
	}
	f, err := g.CreateCFS()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digest, err := composefs.Write(f, tree)
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Commit(Info{RootDigest: digest, Files: len(tree.Root().Names())})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// objectsIn lists the contents of all objects.
func objectsIn(t *testing.T, s *Store) []string {
	t.Helper()
	var contents []string
	err := filepath.WalkDir(s.ObjectsDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if want := s.object(fsverity.Sum(data)); path != want {
			t.Errorf("%.40q is at %s, want %s", data, path, want)
		}
		contents = append(contents, string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(contents)
	return contents
}

func TestStoreKeepsRoots(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "a", "b", "a", "")
	stage(t, s, id(2), "b", "c")
	if got := objectsIn(t, s); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("objects %q", got)
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := again.Roots()
	if err != nil || len(roots) != 2 || roots[0].ID != id(1) || roots[1].ID != id(2) {
		t.Fatalf("roots %+v, %v", roots, err)
	}
	if got, err := again.Root(id(1)); err != nil || got.Info.RootDigest != r.Info.RootDigest ||
		got.Info.NewBytes != 2 || got.Dir != r.Dir {
		t.Errorf("got %+v, %v", got, err)
	}
	var st unix.Stat_t
	for _, dir := range []string{s.dir, s.ObjectsDir(), r.Dir} {
		if err := unix.Stat(dir, &st); err != nil || st.Mode&0o777 != 0o700 {
			t.Errorf("%s has mode %o, %v", dir, st.Mode, err)
		}
	}
	for _, bad := range []string{id(3), "", "host", "sha256-00", "../roots/" + id(1)} {
		if _, err := s.Root(bad); !errors.Is(err, ErrNoRoot) {
			t.Errorf("%q: got %v, want %v", bad, err, ErrNoRoot)
		}
		if _, err := s.Begin(bad); bad != id(3) && err == nil {
			t.Errorf("%q: staging began", bad)
		}
	}
}

func TestIncompleteRootsAreNotListed(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	if err := os.MkdirAll(s.path(rootsDir, id(2), "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if roots, err := s.Roots(); err != nil || len(roots) != 1 {
		t.Errorf("got %+v, %v", roots, err)
	}
	g, err := s.Begin(id(3))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Put(strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if roots, err := s.Roots(); err != nil || len(roots) != 1 || slices.Contains(objectsIn(t, s), "x") {
		t.Errorf("something shows before its time: %+v, %v", roots, err)
	}
	if err := g.Abort(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.path(stagingDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestPut(t *testing.T) {
	s := open(t)
	g, err := s.Begin(id(1))
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", smallFile) + strings.Repeat("\x00", 3*holeSize+5) + "y" +
		strings.Repeat("\x00", 2*smallFile)
	for _, content := range []string{"a", strings.Repeat("b", smallFile), strings.Repeat("c", smallFile+1), large,
		large, "a"} {
		d, err := g.Put(strings.NewReader(content), int64(len(content)))
		if err != nil || d != fsverity.Sum([]byte(content)) {
			t.Errorf("%d bytes: %s, %v", len(content), d, err)
		}
		f, err := g.Object(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(got) != content {
			t.Errorf("%d bytes come back as %d, %v", len(content), len(got), err)
		}
	}
	if want := int64(1 + smallFile + smallFile + 1 + len(large)); g.NewBytes() != want {
		t.Errorf("%d new bytes, want %d", g.NewBytes(), want)
	}
	var st unix.Stat_t
	if err := unix.Stat(g.path(objectsDir, fsverity.Sum([]byte(large)).String()), &st); err != nil ||
		st.Blocks*512 > smallFile+4*holeSize {
		t.Errorf("%d bytes on disk for %d with holes, %v", st.Blocks*512, len(large), err)
	}
	for _, size := range []int64{5, smallFile + 5} {
		if _, err := g.Put(strings.NewReader("abc"), size); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short content of %d: got %v", size, err)
		}
	}
}

// A broken disk can leave an object with the wrong size. Staging replaces it.
func TestADamagedObjectIsReplaced(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "content")
	path := s.object(fsverity.Sum([]byte("content")))
	if err := os.Truncate(path, 3); err != nil {
		t.Fatal(err)
	}
	stage(t, s, id(2), "content")
	if got := objectsIn(t, s); !slices.Equal(got, []string{"content"}) {
		t.Errorf("objects %q", got)
	}
}

func TestGC(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a", "shared")
	stage(t, s, id(2), "b", "shared")
	stage(t, s, id(3), "c", "shared", "")
	other := filepath.Join(s.path(rootsDir, id(2)), "etc", "deep")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(id(4)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.ObjectsDir(), "stranger"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	would, err := s.Unneeded([]string{id(1), id(3), "host", id(9)})
	if err != nil {
		t.Error(err)
	}
	report, err := s.GC([]string{id(1), id(3), "host", id(9)}, nil)
	if !reflect.DeepEqual(would, report) {
		t.Errorf("removed %+v, after promising %+v", report, would)
	}
	if err != nil || !slices.Equal(report.Roots, []string{id(2)}) || report.Objects != 2 || report.Bytes == 0 {
		t.Errorf("report %+v, %v", report, err)
	}
	if got := objectsIn(t, s); !slices.Equal(got, []string{"a", "c", "shared"}) {
		t.Errorf("objects %q", got)
	}
	if left, err := os.ReadDir(s.path(stagingDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if report, err := s.GC([]string{id(1), id(3)}, nil); err != nil || report.Objects != 0 || len(report.Roots) != 0 {
		t.Errorf("second time: %+v, %v", report, err)
	}
	if report, err := s.GC(nil, nil); err != nil || report.Objects != 3 || len(report.Roots) != 2 {
		t.Errorf("all: %+v, %v", report, err)
	}
}

// TestGCOnAFullDisk: it frees space without using any first.
func TestGCOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=64"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	stage(t, s, id(1), "a", "shared")
	stage(t, s, id(2), "b", "shared")
	for n := 0; err == nil; n++ {
		err = os.Mkdir(filepath.Join(dir, fmt.Sprint(n)), 0o700)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for range 2 {
		report, err := s.GC([]string{id(1)}, nil)
		if err != nil || !slices.Equal(report.Roots, []string{id(2)}) || report.Objects != 1 {
			t.Errorf("report %+v, %v", report, err)
		}
		for n := range 16 {
			os.Remove(filepath.Join(dir, fmt.Sprint(n)))
		}
		// It is staged again, and an earlier run was killed before it removed all of it.
		stage(t, s, id(2), "b", "shared")
		if err := os.MkdirAll(s.path(stagingDir, "removed-"+id(2), "etc"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRootsDespiteADamagedOne: a root that cannot be read is reported, and hides no other.
func TestRootsDespiteADamagedOne(t *testing.T) {
	s := open(t)
	damaged := stage(t, s, id(1), "a")
	stage(t, s, id(2), "b")
	if err := os.Truncate(filepath.Join(damaged.Dir, infoName), 10); err != nil {
		t.Fatal(err)
	}
	if roots, err := s.Roots(); err == nil || !strings.Contains(err.Error(), id(1)) || len(roots) != 1 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
}

// TestGCLeavesWhatIsMounted: a root that is in use stays with its objects, and the rest is collected.
func TestGCLeavesWhatIsMounted(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	stage(t, s, id(2), "b")
	stage(t, s, id(3), "c")
	mounted := map[string]string{id(1): "/", id(2): "/srv/data"}
	report, err := s.GC([]string{id(1)}, mounted)
	if err != nil || !slices.Equal(report.Roots, []string{id(3)}) || report.Objects != 1 ||
		len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], id(2)+", but it stays") ||
		!strings.Contains(report.Warnings[0], "by a mount at /srv/data; unmount that") {
		t.Errorf("report %+v, %v", report, err)
	}
	if got := objectsIn(t, s); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("objects %q", got)
	}
}

// TestGCRemovesProtectedFiles: chattr(1) on a file in a root's /etc, or on the root's directory, keeps no root.
func TestGCRemovesProtectedFiles(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	r := stage(t, s, id(2), "b")
	file := filepath.Join(r.Dir, "etc", "resolv.conf")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, r.Dir} {
		if err := durable.SetFlags(p, durable.Protected, unix.STATX_ATTR_IMMUTABLE); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = durable.RemoveAll(s.dir) })
	report, err := s.GC([]string{id(1)}, nil)
	if err != nil || !slices.Equal(report.Roots, []string{id(2)}) || report.Objects != 1 {
		t.Errorf("report %+v, %v", report, err)
	}
	if left, err := os.ReadDir(s.path(stagingDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestGCGoesOnAfterAFault: a root that cannot be removed stays with its objects, and keeps GC from nothing else.
func TestGCGoesOnAfterAFault(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	stuck := stage(t, s, id(2), "b")
	stage(t, s, id(3), "c")
	if err := unix.Mount(t.TempDir(), stuck.Dir, "", unix.MS_BIND, ""); err != nil { // a mount point cannot be renamed
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(stuck.Dir, unix.MNT_DETACH) })
	report, err := s.GC([]string{id(1)}, nil)
	if !errors.Is(err, unix.EBUSY) || !slices.Equal(report.Roots, []string{id(3)}) {
		t.Errorf("report %+v, %v", report, err)
	}
	if got := objectsIn(t, s); !slices.Equal(got, []string{"a", "b", "c"}) { // those of the stuck root cannot be read
		t.Errorf("objects %q", got)
	}
	if left, err := os.ReadDir(s.path(stagingDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// GC must not remove the objects of a damaged root that is kept.
func TestGCRemovesNothingWhenAKeptRootIsDamaged(t *testing.T) {
	for name, damage := range map[string]func(r Root) error{
		"image changed":   func(r Root) error { return change(r.CFS(), 5000) },
		"image truncated": func(r Root) error { return os.Truncate(r.CFS(), 100) },
		"image gone":      func(r Root) error { return os.Remove(r.CFS()) },
		"info gone":       func(r Root) error { return os.Remove(filepath.Join(r.Dir, infoName)) },
		"info unreadable": func(r Root) error { return os.Truncate(filepath.Join(r.Dir, infoName), 10) },
		"info of a future": func(r Root) error {
			return os.WriteFile(filepath.Join(r.Dir, infoName), []byte(`{"schema":"v9"}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			r := stage(t, s, id(1), "a")
			stage(t, s, id(2), "b")
			if err := damage(r); err != nil {
				t.Fatal(err)
			}
			if report, err := s.GC([]string{id(1)}, nil); err == nil || report.Objects != 0 || len(report.Roots) != 0 {
				t.Errorf("got %+v, %v", report, err)
			}
			if got := objectsIn(t, s); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("objects %q", got)
			}
			if _, err := s.Root(id(2)); err != nil {
				t.Error(err)
			}
		})
	}
}

// change flips a byte of a file.
func change(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
	return err
}
