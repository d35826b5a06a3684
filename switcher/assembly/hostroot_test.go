package assembly

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/mount"
)

// hostMount is where roots of tests have the host root. The machine that runs the tests has no such directory.
const hostMount = "/nowhere/host"

// arriveInImage makes this the armed root, as far as the host root goes: that is mounted where the armed root has it,
// and what is mounted at / is an image.
func arriveInImage(hostMount string) error {
	host, err := mount.Clone(filepath.Join(switcher.NextRoot, hostMount), true)
	if err != nil {
		return err
	}
	defer host.Close()
	// Nothing is looked up in what is mounted over the root of a process.
	return errors.Join(Disarm(), host.Attach(hostMount), unix.Mount(switcher.SourcePrefix+"sha256-0", "/", "tmpfs", 0, ""))
}

// TestHostRootComesAlong: from image to image, too, with a /usr of its own. If somebody has unmounted it, the next root
// is without it.
func TestHostRootComesAlong(t *testing.T) {
	state, hostMount := t.TempDir(), filepath.Join(t.TempDir(), "host")
	n := testRoot(t, state[1:]+"/", hostMount[1:]+"/")
	n.Persist, n.HostMount = []string{state}, hostMount
	inOwnNamespace(t, func() {
		if err := errors.Join(unix.Mount("/usr", "/usr", "", unix.MS_BIND, ""), os.Mkdir(hostMount, 0o755)); err != nil {
			t.Error(err)
			return
		}
		for _, from := range []string{"the host root", "an image", "another image"} {
			if stay, err := n.Mounts("/nowhere"); err != nil || !slices.Contains(stay, hostMount+"/usr") {
				t.Errorf("from %s: the graft keeps %q mounted: %v", from, stay, err)
			}
			if err := Arm(n); err != nil {
				t.Errorf("from %s: %v", from, err)
				return
			}
			at := filepath.Join(switcher.NextRoot, hostMount)
			for _, p := range []string{at, at + "/usr"} {
				if mounted, err := mount.IsMountPoint(p); err != nil || !mounted {
					t.Errorf("from %s: %s is not mounted: %v", from, p, err)
				}
				if err := os.WriteFile(p+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
					t.Errorf("from %s: %s can be written: %v", from, p, err)
				}
			}
			if count := countBelow(t, at); count != 2 {
				t.Errorf("from %s: %d mounts of the host root", from, count)
			}
			if err := arriveInImage(hostMount); err != nil {
				t.Error(err)
				return
			}
		}
		if err := Arm(Next{ID: switcher.HostRoot, Persist: n.Persist, HostMount: hostMount}); err != nil {
			t.Errorf("no way back: %v", err)
		}
		usr := filepath.Join(switcher.NextRoot, "usr")
		var st unix.Statfs_t
		if mounted, err := mount.IsMountPoint(usr); err != nil || !mounted || unix.Statfs(usr, &st) != nil ||
			st.Flags&unix.ST_RDONLY != 0 {
			t.Errorf("on the way back, /usr is mounted: %v, %v; flags %#x", mounted, err, st.Flags)
		}
		for range 3 {
			if err := unix.Unmount(hostMount, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
		if err := Arm(n); err != nil {
			t.Errorf("without the host root: %v", err)
		}
		if mounted, err := mount.IsMountPoint(filepath.Join(switcher.NextRoot, hostMount)); err != nil || mounted {
			t.Errorf("the directory of the host root is mounted: %v, %v", mounted, err)
		}
	})
}

// TestRootWithoutPlaceForTheHostRoot: a root that ran before does without the host root, which a full reboot leads to,
// too.
func TestRootWithoutPlaceForTheHostRoot(t *testing.T) {
	for name, image := range map[string][]string{"no directory": nil, "a file": {hostMount[1:]}} {
		t.Run(name, func(t *testing.T) {
			n := testRoot(t, append(image, "tmp/")...)
			n.HostMount = hostMount
			inOwnNamespace(t, func() {
				if err := Arm(n); err == nil {
					t.Error("a new root was armed")
				}
				n.Return = true
				if err := Arm(n); err != nil {
					t.Errorf("no way back: %v", err)
				}
			})
		})
	}
}
