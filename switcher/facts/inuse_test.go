package facts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// bind mounts a directory at another one until the test ends.
func bind(t *testing.T, from, at string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(at, 0o755), unix.Mount(from, at, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
}

// TestMountedRoots: a root is in use if something of it is mounted, also if that was removed, or in another mount
// namespace, or if something is mounted in it.
func TestMountedRoots(t *testing.T) {
	roots := testtree.Make(t, "free/etc/", "bound/etc/", "removed/etc/x/", "over/etc/", "elsewhere/etc/", "freeother/")
	at := t.TempDir()
	bind(t, filepath.Join(roots, "bound/etc"), filepath.Join(at, "bound"))
	bind(t, filepath.Join(roots, "removed/etc/x"), filepath.Join(at, "removed"))
	if err := os.Remove(filepath.Join(roots, "removed/etc/x")); err != nil {
		t.Fatal(err)
	}
	bind(t, t.TempDir(), filepath.Join(roots, "over/etc"))
	// A mount of an image root: its source has the root's identity.
	if err := errors.Join(os.Mkdir(filepath.Join(at, "image"), 0o755),
		unix.Mount("updatectl:image", filepath.Join(at, "image"), "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(at, "image"), unix.MNT_DETACH) })
	// A process with a mount namespace of its own.
	const elsewhere = `mount --bind "$0" "$1" && echo ready && exec cat`
	other := exec.Command("unshare", "--mount", "sh", "-c", elsewhere, filepath.Join(roots, "elsewhere/etc"), t.TempDir())
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer in.Close()
	if n, err := out.Read(make([]byte, 16)); n == 0 {
		t.Fatalf("nothing was mounted in another namespace: %v", err)
	}
	used, err := MountedRoots(roots)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"bound", "removed", "over", "elsewhere", "image"} {
		if used[id] == "" {
			t.Errorf("%s is mounted and not found: %v", id, used)
		}
	}
	for _, id := range []string{"free", "freeother"} {
		if used[id] != "" {
			t.Errorf("%s is taken for mounted at %s", id, used[id])
		}
	}
	if used, err := MountedRoots(filepath.Join(roots, "none")); err != nil || len(used) != 0 {
		t.Errorf("without a directory of roots: %v, %v", used, err)
	}
}

// TestPlaceOf: the same directory has the same place, wherever it is mounted.
func TestPlaceOf(t *testing.T) {
	dir := testtree.Make(t, "data/sub/", "link -> data", "gone/")
	at := filepath.Join(t.TempDir(), "at")
	bind(t, filepath.Join(dir, "data"), at)
	want, err := PlaceOf(filepath.Join(dir, "data/sub"))
	if err != nil || want.Deleted {
		t.Fatal(want, err)
	}
	for _, p := range []string{filepath.Join(at, "sub"), filepath.Join(dir, "link/sub")} {
		if got, err := PlaceOf(p); err != nil || got.Device != want.Device || got.Path != want.Path {
			t.Errorf("%s lies at %+v, %v; want %+v", p, got, err, want)
		}
	}
	if all, err := PlaceOf(dir); err != nil || !want.Within(all) || all.Within(want) {
		t.Errorf("%+v and %+v, %v", want, all, err)
	}
	bind(t, filepath.Join(dir, "gone"), at+"-gone")
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if got, err := PlaceOf(at + "-gone"); err != nil || !got.Deleted {
		t.Errorf("%+v, %v; want a deleted one", got, err)
	}
	if _, err := PlaceOf(filepath.Join(dir, "none")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing: %v", err)
	}
}
