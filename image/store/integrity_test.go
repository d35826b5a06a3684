package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/verify"
)

// damage replaces the content of a file by other content of the same size, in place as a disk does it, or in a new
// file where the kernel forbids that.
func damage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err == nil {
		return
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedObjectIsNotReused: an object of the right size and other content does not get into the next root.
func TestDamagedObjectIsNotReused(t *testing.T) {
	large := strings.Repeat("large", smallFile/4)
	s := open(t)
	stage(t, s, id(1), "shared", large)
	for _, content := range []string{"shared", large} {
		damage(t, s.object(fsverity.Sum([]byte(content))))
	}
	r := stage(t, s, id(2), "shared", large, "new")
	if got := objectsIn(t, s); !slices.Equal(got, []string{large, "new", "shared"}) { // it checks their names
		t.Errorf("%d objects", len(got))
	}
	if want := int64(len("shared") + len(large) + len("new")); r.Info.NewBytes != want {
		t.Errorf("%d new bytes, want %d", r.Info.NewBytes, want)
	}
}

// TestObjectOfAnotherKindIsNotReused: nor does something that is no file.
func TestObjectOfAnotherKindIsNotReused(t *testing.T) {
	for name, put := range map[string]func(string) error{
		"directory": func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o700) },
		"link":      func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		s := open(t)
		stage(t, s, id(1), "shared")
		object := s.object(fsverity.Sum([]byte("shared")))
		if err := os.Remove(object); err != nil {
			t.Fatal(err)
		}
		if err := put(object); err != nil {
			t.Fatal(err)
		}
		stage(t, s, id(2), "shared")
		if got := objectsIn(t, s); !slices.Equal(got, []string{"shared"}) {
			t.Errorf("%s: objects %q", name, got)
		}
	}
}

// TestFlippedBitsOfImageJSON: each flipped bit in image.json is found.
func TestFlippedBitsOfImageJSON(t *testing.T) {
	data, err := Info{Schema: Schema, Version: "1", Files: 3}.encode()
	if err != nil || checkSum(data) != nil {
		t.Fatal(err, checkSum(data))
	}
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			if json.Valid(data) && checkSum(data) == nil {
				t.Errorf("byte %d, bit %d: not found", i, bit)
			}
			data[i] ^= 1 << bit
		}
	}
	old := []byte("{\n  \"schema\": \"updatectl.image/v1\",\n  \"new_bytes\": 7\n}\n")
	if err := checkSum(old); err != nil {
		t.Error(err)
	}
}

// TestFsck: every kind of damage is found, with its name, and nothing else is.
func TestFsck(t *testing.T) {
	shared := func(s *Store) string { return s.object(fsverity.Sum([]byte("shared"))) }
	for name, c := range map[string]struct {
		harm func(*testing.T, *Store) error
		want []string // parts of the paths
	}{
		"nothing":        {func(*testing.T, *Store) error { return nil }, nil},
		"object":         {func(t *testing.T, s *Store) error { damage(t, shared(s)); return nil }, []string{"objects/"}},
		"object is gone": {func(_ *testing.T, s *Store) error { return os.Remove(shared(s)) }, []string{"objects/"}},
		"root.cfs": {func(t *testing.T, s *Store) error { damage(t, s.path(rootsDir, id(1), cfsName)); return nil },
			[]string{"roots/" + id(1)}},
		"image.json": {func(t *testing.T, s *Store) error { damage(t, s.path(rootsDir, id(1), infoName)); return nil },
			[]string{"roots/" + id(1)}},
		"swapped": {func(_ *testing.T, s *Store) error {
			return exchange(s, id(1), id(2))
		}, []string{"roots/" + id(1), "roots/" + id(2)}},
		"a stranger": {func(_ *testing.T, s *Store) error {
			return os.WriteFile(filepath.Join(s.ObjectsDir(), "stranger"), []byte("x"), 0o600)
		}, []string{"objects/stranger"}},
	} {
		s := open(t)
		for n, content := range []string{"one", "two"} {
			r := stage(t, s, id(n+1), "shared", content)
			r.Info.Digest = digest.Digest(strings.Replace(r.ID, "-", ":", 1))
			data, err := r.Info.encode()
			if err == nil {
				err = durable.WriteFile(filepath.Join(r.Dir, infoName), data, 0o444)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := c.harm(t, s); err != nil {
			t.Fatal(err)
		}
		report, err := s.Fsck(t.Context(), s.Intact)
		if err != nil {
			t.Fatal(err)
		}
		found := len(report.Damage) == len(c.want)
		for _, want := range c.want {
			found = found && slices.ContainsFunc(report.Damage, func(d Damage) bool {
				return strings.Contains(d.Path, want)
			})
		}
		if !found {
			t.Errorf("%s: %+v, want %q", name, report.Damage, c.want)
		}
		if swapped, err := s.Unswap(); err != nil || swapped != (name == "swapped") {
			t.Errorf("%s: swapped is %v, %v", name, swapped, err)
		}
		report, err = s.Fsck(t.Context(), s.Intact)
		if err != nil || name == "swapped" && len(report.Damage) != 0 {
			t.Errorf("%s, after Unswap: %+v, %v", name, report.Damage, err)
		}
	}
}

// TestUnreadableObjectIsReplaced: fsck can find a wrong block although the kernel reports the right digest. Such an
// object is not right for the check before a root is staged again either, and is replaced. Here the content is right
// again after fsck, as that digest is.
func TestUnreadableObjectIsReplaced(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "shared")
	object := s.object(fsverity.Sum([]byte("shared")))
	damage(t, object)
	if report, err := s.Fsck(t.Context(), s.Intact); err != nil || len(report.Damage) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if err := os.WriteFile(object, []byte("shared"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckObjects(r); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want %v", err, ErrDamaged)
	}
	r = stage(t, s, id(1), "shared")
	if want := int64(len("shared")); r.Info.NewBytes != want {
		t.Errorf("%d new bytes, want %d", r.Info.NewBytes, want)
	}
	if err := s.CheckObjects(r); err != nil {
		t.Error(err)
	}
}

// TestObjectWithoutVerity: an object that the kernel does not verify is damage only if it verifies the image of a root
// that needs the object: such a root is mounted so that reading the object fails.
func TestObjectWithoutVerity(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	object := fsverity.Sum([]byte("a"))
	if err := durable.WriteFile(s.object(object), []byte("a"), 0o400); err != nil { // a new file, without fs-verity
		t.Fatal(err)
	}
	for verified, want := range map[string]int{"": 0, id(2): 0, id(1): 1} {
		c := fsck{store: s, users: map[fsverity.Digest][]string{object: {id(1)}}, known: checked{},
			verified: map[string]bool{verified: true}}
		if err := c.objects(t.Context()); err != nil || len(c.report.Damage) != want || c.report.Objects != 1 {
			t.Errorf("the kernel verifies %q: %+v, %v, want %d", verified, c.report, err, want)
		}
	}
}

// TestInterruptedFsckForgets: after an interrupted check, no object counts as checked: it may have found one damaged.
func TestInterruptedFsckForgets(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fsck(ctx, s.Intact); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if known := readChecked(s); len(known) != 0 {
		t.Errorf("checked: %v", known)
	}
}

// TestFsckBesideStaging: fsck takes no lock. What it finds damaged while a root is staged does not get back into the
// list of checked objects by the list that the staging read before.
func TestFsckBesideStaging(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "rotten", "right")
	rotten, right := fsverity.Sum([]byte("rotten")), fsverity.Sum([]byte("right"))
	damage(t, s.object(rotten))
	known := checked{}
	for _, d := range []fsverity.Digest{rotten, right} { // what rots on the disk keeps the time of its last change
		known.note(d, s.object(d))
	}
	if err := writeChecked(s, known); err != nil {
		t.Fatal(err)
	}
	g, err := s.Begin(id(2))
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(s.dir) // as another process has it
	if err != nil {
		t.Fatal(err)
	}
	if report, err := other.Fsck(t.Context(), other.Intact); err != nil || len(report.Damage) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	commit(t, g, archive(t, tar.Header{Name: "f"}, "new"))
	known = readChecked(s)
	for content, want := range map[string]bool{"rotten": false, "right": true, "new": true} {
		if _, has := known[fsverity.Sum([]byte(content))]; has != want && !g.sealed {
			t.Errorf("%q is on the list: %v, want %v", content, has, want)
		}
	}
	if err := s.CheckObjects(r); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want %v", err, ErrDamaged)
	}
}

// TestCheckedCannotBeWritten: a list that cannot be written, as on a full disk, is removed, and stops nothing.
func TestCheckedCannotBeWritten(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "a")
	if err := os.RemoveAll(s.path(checkedName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path(checkedName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeChecked(s, checked{fsverity.Sum([]byte("a")): {at: 1, here: true}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.path(checkedName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the list is still there: %v", err)
	}
	if err := s.CheckObjects(r); err != nil {
		t.Error(err)
	}
}

// TestFsckBesideGC: what is removed while fsck runs, as `updatectl gc` does, is no damage.
func TestFsckBesideGC(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "shared", "one")
	stage(t, s, id(2), "shared", "two")
	collect := func(Root) error { // after fsck listed the roots
		_, err := s.GC([]string{id(1)}, nil)
		return err
	}
	if report, err := s.Fsck(t.Context(), collect); err != nil || len(report.Damage) != 0 || report.Roots != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	stage(t, s, id(2), "shared", "two")
	c := fsck{store: s, users: map[fsverity.Digest][]string{}, known: checked{}}
	for _, content := range []string{"shared", "one", "two"} {
		c.users[fsverity.Sum([]byte(content))] = []string{id(2)}
	}
	if _, err := s.GC(nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.objects(t.Context()); err != nil || len(c.report.Damage) != 0 || c.report.Objects != 0 {
		t.Errorf("%+v, %v", c.report, err)
	}
}

// TestPipesInPlaceOfFiles: a pipe in a root's directory is an error. Opening it would wait for a writer.
func TestPipesInPlaceOfFiles(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "a")
	for _, path := range []string{r.CFS(), r.evidence()} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Evidence(); !errors.Is(err, verify.ErrMalformed) {
		t.Errorf("evidence: got %v, want %v", err, verify.ErrMalformed)
	}
	if _, err := s.GC([]string{id(1)}, nil); !errors.Is(err, durable.ErrNotRegular) {
		t.Errorf("gc: got %v, want %v", err, durable.ErrNotRegular)
	}
}
