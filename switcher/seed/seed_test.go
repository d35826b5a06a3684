package seed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestSeed(t *testing.T) {
	long := strings.Repeat("x", 255)
	image := testtree.Make(t, "lib/new/sub/file", "lib/old/image-file", "lib/dpkg/status", "log/",
		"spool -> log", "lib/blocked/x", "lib/old/"+long+"/file")
	host := testtree.Make(t, "lib/old/host-file", "lib/blocked")
	if err := unix.Chown(filepath.Join(image, "lib/new/sub/file"), 110, 120); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(image, "lib/new/sub"), 0o2770); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(filepath.Join(image, "lib/new/sub"), 0o2770); err != nil {
		t.Fatal(err)
	}
	owners := copies.Owners{UID: map[uint32]uint32{110: 998}, GID: map[uint32]uint32{120: 997}}
	seeded, err := Missing(image, host, owners, []string{"lib/dpkg"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"lib/new", "lib/old/" + long, "log"}; !slices.Equal(seeded, want) {
		t.Errorf("seeded %v, want %v", seeded, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(host, "lib/new/sub/file"), &st); err != nil || st.Uid != 998 || st.Gid != 997 {
		t.Errorf("owner %d:%d, %v; want the host's numbers 998:997", st.Uid, st.Gid, err)
	}
	if err := unix.Stat(filepath.Join(host, "lib/new/sub"), &st); err != nil || st.Mode&0o7777 != 0o2770 {
		t.Errorf("mode %o, %v; want 2770", st.Mode&0o7777, err)
	}
	for _, p := range []string{"lib/old/image-file", "lib/dpkg"} {
		if _, err := os.Lstat(filepath.Join(host, p)); err == nil {
			t.Errorf("%s was seeded", p)
		}
	}
	if again, err := Missing(image, host, owners, []string{"lib/dpkg"}); err != nil || len(again) != 0 {
		t.Errorf("a second time seeded %v, %v", again, err)
	}
}

// TestSeedLeavesNoHalfCopies: neither after an error nor after a run that was killed.
func TestSeedLeavesNoHalfCopies(t *testing.T) {
	image := testtree.Make(t, "lib/a/file", "lib/b/file", "spool/")
	// A full disk, and what a killed run left of a directory that this image does not have.
	host := t.TempDir()
	if err := unix.Mount("tmpfs", host, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(host, 0)
	for _, dir := range []string{"lib/.updatectl-seed-old/sub", "spool/.updatectl-seed-x"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(image, "lib/b/file"), make([]byte, 128<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Missing(image, host, copies.Owners{}, nil); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want %v", err, unix.ENOSPC)
	}
	if left := halfCopies(t, host); !slices.Equal(left, []string{".updatectl-seed-x"}) { // it did not get there
		t.Errorf("after an error, there are %q", left)
	}
	if err := os.WriteFile(filepath.Join(image, "lib/b/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	seeded, err := Missing(image, host, copies.Owners{}, nil)
	if want := []string{"lib/a", "lib/b"}; err != nil || !slices.Equal(seeded, want) {
		t.Errorf("seeded %v, %v; want %v", seeded, err, want)
	}
	if left := halfCopies(t, host); len(left) != 0 {
		t.Errorf("a killed run's %q are left", left)
	}
}

// halfCopies returns the names below a directory that are half copies.
func halfCopies(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), halfCopy) {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestSeedWithoutAttributes: a file system that cannot hold an extended attribute does not keep a host from its way.
func TestSeedWithoutAttributes(t *testing.T) {
	image := testtree.Make(t, "lib/file")
	file := filepath.Join(image, "lib/file")
	if err := unix.Setxattr(file, "trusted.note", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	if err := unix.Mount("ramfs", host, "ramfs", 0, ""); err != nil { // has none at all
		t.Fatal(err)
	}
	defer unix.Unmount(host, 0)
	if seeded, err := Missing(image, host, copies.Owners{}, nil); err != nil || !slices.Equal(seeded, []string{"lib"}) {
		t.Errorf("seeded %v, %v", seeded, err)
	}
}
