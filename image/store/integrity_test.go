package store

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/image/fsverity"
)

// damage replaces the content of a file by other content of the same size, in place as a disk does it, or in a new file
// where the kernel forbids that.
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
