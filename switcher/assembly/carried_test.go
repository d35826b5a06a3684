package assembly

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestEtcHasItsOwnFlags: scripts in /etc run although it lies on a hardened /var, which stays as it is.
func TestEtcHasItsOwnFlags(t *testing.T) {
	state := t.TempDir()
	n := testRoot(t, state[1:]+"/")
	n.Persist, n.HostMount, n.Etc = []string{state}, filepath.Join(state, "host"), filepath.Join(state, "etc")
	inOwnNamespace(t, func() {
		const hardened = unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV
		script := filepath.Join(n.Etc, "cron.daily")
		if err := errors.Join(
			unix.Mount("tmpfs", state, "tmpfs", hardened, "mode=755"), os.Mkdir(n.Etc, 0o755), os.Mkdir(n.HostMount, 0o755),
			os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755),
			Arm(n),
		); err != nil {
			t.Error(err)
			return
		}
		if out, err := exec.Command(filepath.Join(switcher.NextRoot, "etc/cron.daily")).CombinedOutput(); err != nil {
			t.Errorf("a script in /etc does not run: %v: %s", err, out)
		}
		for at, want := range map[string]int64{"etc": 0, state: unix.ST_NOEXEC | unix.ST_NOSUID | unix.ST_NODEV} {
			var st unix.Statfs_t
			err := unix.Statfs(filepath.Join(switcher.NextRoot, at), &st)
			if got := st.Flags & (unix.ST_NOEXEC | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_RDONLY); err != nil || got != want {
				t.Errorf("flags of %s are %#x, %v; want %#x", at, got, err, want)
			}
		}
	})
}

// TestMountsDoNotPileUp: however often a host with containers switches, a root has the same number of mounts, and the
// disks that it had.
func TestMountsDoNotPileUp(t *testing.T) {
	const switches = 100
	state := testtree.Make(t, "disk/", "cache/", "docker/")
	n := testRoot(t, state[1:]+"/", hostMount[1:]+"/")
	n.Persist, n.HostMount = []string{state}, hostMount
	n.Fstab = []string{filepath.Join(state, "cache")}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	inOwnNamespace(t, func() {
		err := unix.Mount("tmpfs", filepath.Join(state, "cache"), "tmpfs", 0, "")
		if out, lerr := exec.Command("mount", "-o", "loop", disk, state+"/disk").CombinedOutput(); lerr != nil {
			err = errors.Join(err, fmt.Errorf("mount: %w: %s", lerr, out))
		}
		first := 0
		for i := range switches {
			if err = errors.Join(err, container(state, i), Arm(n)); err != nil {
				t.Error(err)
				return
			}
			count := countBelow(t, switcher.NextRoot)
			if first == 0 {
				first = count
			}
			if count != first {
				t.Errorf("%d mounts after %d switches, %d after the first", count, i+1, first)
				return
			}
			err = arrive(state)
		}
		for _, name := range []string{"disk", "cache"} {
			if mounted, err := mount.IsMountPoint(filepath.Join(state, name)); err != nil || !mounted {
				t.Errorf("%s is not mounted any more: %v", name, err)
			}
		}
	})
}

// container mounts what a container leaves below the state: an overlay, a tmpfs and a bind of a directory.
func container(state string, i int) error {
	dir := filepath.Join(state, "docker", fmt.Sprint(i))
	for _, name := range []string{"lower", "merged", "shm", "volume"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		unix.Mount("overlay", dir+"/merged", "overlay", unix.MS_RDONLY, "lowerdir="+dir+"/lower:"+dir+"/volume"),
		unix.Mount("shm", dir+"/shm", "tmpfs", 0, ""),
		unix.Mount(filepath.Join(state, "disk/lost+found"), dir+"/volume", "", unix.MS_BIND, ""),
	)
}

// arrive makes the state of the armed root that of this one, as a switch does.
func arrive(state string) error {
	next, err := mount.Clone(filepath.Join(switcher.NextRoot, state), true)
	if err != nil {
		return err
	}
	defer next.Close()
	return errors.Join(Disarm(), mount.Detach(state), next.Attach(state))
}

// TestUnmountedStateIsLeftToTheRoot: a state path that the new root mounts, by fstab or by a unit, and that is not
// mounted any more, is not carried over as the empty directory below the mount.
func TestUnmountedStateIsLeftToTheRoot(t *testing.T) {
	state := t.TempDir()
	for name, c := range map[string]struct {
		fstab []string
		unit  bool
		want  bool // carried
	}{
		"a directory":      {nil, false, true},
		"in fstab":         {[]string{state}, false, false},
		"by a native unit": {nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := testRoot(t, state[1:]+"/", "host/")
			n.Persist, n.HostMount, n.Fstab = []string{state}, "/host", c.fstab
			if c.unit {
				units := filepath.Join(n.Etc, "systemd/system")
				unit := filepath.Join(units, unit.UnitNamePathEscape(state)+".mount")
				if err := errors.Join(os.MkdirAll(units, 0o755), os.WriteFile(unit, nil, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			inOwnNamespace(t, func() {
				if err := Arm(n); err != nil {
					t.Error(err)
				}
				if got, err := mount.IsMountPoint(filepath.Join(switcher.NextRoot, state)); err != nil || got != c.want {
					t.Errorf("carried: %v, %v; want %v", got, err, c.want)
				}
			})
		})
	}
}

// TestLeftBehind: what nothing in the new root mounts again is named, and nothing else.
func TestLeftBehind(t *testing.T) {
	state := testtree.Make(t, "cache/", "lazy/", "shm/")
	n := Next{Persist: []string{state, "/nowhere"}, HostMount: state + "/host", Fstab: []string{state + "/cache"},
		Automounts: []string{state + "/lazy"}}
	inOwnNamespace(t, func() {
		for _, name := range []string{"cache", "lazy", "shm"} {
			if err := unix.Mount("tmpfs", filepath.Join(state, name), "tmpfs", 0, ""); err != nil {
				t.Error(err)
			}
		}
		left, err := n.LeftBehind("/nowhere")
		if want := []string{state + "/shm"}; err != nil || !slices.Equal(left, want) {
			t.Errorf("left behind are %q, %v; want %q", left, err, want)
		}
	})
}
