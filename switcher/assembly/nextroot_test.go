package assembly

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// inOwnNamespace runs do in a mount namespace of its own with an empty /run, so that nothing is ever armed on the
// machine that tests. What that machine mounts below /run, before or meanwhile, is not part of it.
func inOwnNamespace(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		for _, step := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unmountBelow("/run") },
			func() error { return unix.Mount("tmpfs", "/run", "tmpfs", 0, "") },
		} {
			if err := step(); err != nil {
				t.Error(err)
				return
			}
		}
		if n := countBelow(t, "/run"); n != 1 {
			t.Errorf("%d mounts below /run before anything was armed", n)
			return
		}
		do()
	}()
	<-done
}

// unmountBelow unmounts dir, if it is a mount point, and everything below it in this thread's namespace.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) { // gone with the one it was mounted in
			return &os.PathError{Op: "unmount", Path: m.Mountpoint, Err: err}
		}
	}
	return nil
}

// testRoot makes a composefs image by hand, as mkfs.erofs writes it from a tree with the overlay's attributes.
func testRoot(t *testing.T, names ...string) Next {
	t.Helper()
	n := Next{ID: "sha256-1", Objects: t.TempDir(), Graft: t.TempDir(), Etc: t.TempDir(), KernelRelease: "none"}
	image := testtree.Make(t,
		append(names, "etc/", "dev/", "proc/", "sys/", "run/", "usr/lib/os-release", "usr/lib/systemd/systemd", "hello")...)
	if err := os.WriteFile(filepath.Join(n.Objects, "content"), []byte("from an object"), 0o600); err != nil {
		t.Fatal(err)
	}
	hello := filepath.Join(image, "hello")
	if err := errors.Join(
		os.Truncate(hello, 0), os.Truncate(hello, int64(len("from an object"))),
		unix.Setxattr(hello, "trusted.overlay.redirect", []byte("/content"), 0),
		unix.Setxattr(hello, "trusted.overlay.metacopy", nil, 0),
	); err != nil {
		t.Fatal(err)
	}
	n.CFS = filepath.Join(t.TempDir(), "root.cfs")
	if out, err := exec.Command("mkfs.erofs", n.CFS, image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	return n
}

func TestArm(t *testing.T) {
	state := testtree.Make(t, "lib/app/data", "lib/pkg/of-the-host")
	n := testRoot(t, strings.TrimPrefix(state, "/")+"/lib/pkg/of-the-image",
		strings.TrimPrefix(state, "/")+"/lib/seeded/x", "tmp/")
	n.Persist, n.ImageOwned = []string{state}, []string{filepath.Join(state, "lib/pkg"), filepath.Join(state, "lib/none")}
	n.HostMount = filepath.Join(state, "host")
	if err := os.WriteFile(filepath.Join(n.Etc, "hostname"), []byte("merged"), 0o644); err != nil {
		t.Fatal(err)
	}
	inOwnNamespace(t, func() {
		for range 3 { // again, as after a rollback: nothing piles up
			if err := Arm(n); err != nil {
				t.Error(err)
				return
			}
		}
		if id, err := Armed(); err != nil || id != n.ID {
			t.Errorf("Armed = %q, %v", id, err)
		}
		for p, want := range map[string]string{
			"hello": "from an object", "etc/hostname": "merged",
			state + "/lib/app/data":         "lib/app/data",
			state + "/lib/pkg/of-the-image": strings.TrimPrefix(state, "/") + "/lib/pkg/of-the-image",
		} {
			if got, err := os.ReadFile(filepath.Join(switcher.NextRoot, p)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", p, got, err)
			}
		}
		if rootfs.Exists(filepath.Join(switcher.NextRoot, state, "lib/pkg/of-the-host")) {
			t.Error("the package database is the host's")
		}
		if !rootfs.Exists(filepath.Join(state, "lib/seeded/x")) {
			t.Error("a new directory of the image was not seeded")
		}
		if !rootfs.Exists(filepath.Join(switcher.NextRoot, n.HostMount, "proc")) {
			t.Error("the host root did not come along")
		}
		if err := os.WriteFile(filepath.Join(switcher.NextRoot, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("the root can be written: %v", err)
		}
		if err := os.WriteFile(filepath.Join(switcher.NextRoot, n.HostMount, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("the host root can be written from the image: %v", err)
		}
		if err := os.WriteFile(filepath.Join(switcher.NextRoot, "tmp/x"), nil, 0o600); err != nil {
			t.Errorf("/tmp cannot be written: %v", err)
		}
		if n := countBelow(t, "/run"); n > 8 {
			t.Errorf("%d mounts below /run after arming three times", n)
		}
		if err := Disarm(); err != nil {
			t.Error(err)
		}
		if id, err := Armed(); err != nil || id != "" || countBelow(t, "/run") != 1 {
			t.Errorf("after Disarm: %q, %v, %d mounts", id, err, countBelow(t, "/run"))
		}
	})
}

// countBelow counts the mounts at dir and below.
func countBelow(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(text)) {
		if at := strings.Fields(line)[4]; at == dir || strings.HasPrefix(at, dir+"/") {
			count++
		}
	}
	return count
}

// TestArmFailureLeavesNothing: whatever is wrong with a root, nothing is armed and nothing stays mounted.
func TestArmFailureLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Next)
		want  string
	}{
		"image gone":        {func(n *Next) { n.CFS += ".none" }, "no such file"},
		"image broken":      {func(n *Next) { os.Truncate(n.CFS, 100) }, "erofs"},
		"no merged /etc":    {func(n *Next) { n.Etc += ".none" }, "cannot clone the mount"},
		"no object store":   {func(n *Next) { n.Objects += ".none" }, "overlay layer"},
		"no mount point":    {func(n *Next) { n.Persist = []string{"/usr/lib"} }, ""},
		"host not mounted":  {func(n *Next) { n.ID, n.HostMount = switcher.HostRoot, "/nowhere" }, "cannot clone the mount"},
		"host is no system": {func(n *Next) { n.ID, n.HostMount = switcher.HostRoot, n.Objects }, "no os-release"},
	} {
		t.Run(name, func(t *testing.T) {
			n := testRoot(t)
			n.HostMount = "/nowhere-below-a-read-only-root"
			c.spoil(&n)
			inOwnNamespace(t, func() {
				err := Arm(n)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Arm: %v, want %q", err, c.want)
				}
				if countBelow(t, "/run") != 1 || rootfs.Exists(switcher.NextRoot) {
					t.Errorf("left mounted: %d below /run, %s there: %v", countBelow(t, "/run"),
						switcher.NextRoot, rootfs.Exists(switcher.NextRoot))
				}
			})
		})
	}
}
