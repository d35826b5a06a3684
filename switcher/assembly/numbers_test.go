package assembly

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// numbersImage returns a root whose image has files under numbers that other names have on the host.
func numbersImage(t *testing.T) Next {
	t.Helper()
	n := testRoot(t, "var/")
	image := testtree.Make(t, "usr/bin/crontab", "usr/bin/helper", "usr/bin/third", "usr/bin/set-uid", "usr/bin/capable",
		"usr/share/acl", "srv/owned/", "var/lib/db/data", "etc/", "usr/lib/os-release", "usr/lib/systemd/systemd",
		"dev/", "proc/", "sys/", "run/", "tmp/")
	at := func(name string) string { return filepath.Join(image, name) }
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	const nobody = ^uint32(0)
	for _, e := range [][3]uint32{{1, 6, nobody}, {4, 4, nobody}, {8, 4, 997}, {16, 4, nobody}, {32, 0, nobody}} {
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[0]))
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[1]))
		acl = binary.LittleEndian.AppendUint32(acl, e[2])
	}
	capability := make([]byte, 20) // version 2, cap_net_raw
	binary.LittleEndian.PutUint32(capability, 0x02000001)
	binary.LittleEndian.PutUint32(capability[4:], 1<<13)
	if err := errors.Join(
		os.Chown(at("usr/bin/crontab"), 0, 997), unix.Chmod(at("usr/bin/crontab"), 0o2755),
		os.Chown(at("usr/bin/helper"), 0, 996), unix.Chmod(at("usr/bin/helper"), 0o2750),
		os.Chown(at("usr/bin/third"), 0, 995), os.Link(at("usr/bin/crontab"), at("usr/bin/hardlink")),
		os.Chown(at("usr/bin/set-uid"), 101, 0), unix.Chmod(at("usr/bin/set-uid"), 0o4755),
		unix.Setxattr(at("usr/share/acl"), "system.posix_acl_access", acl, 0),
		unix.Setxattr(at("usr/bin/capable"), "security.capability", capability, 0),
		os.Chown(at("var/lib/db"), 101, 997), os.Chown(at("var/lib/db/data"), 101, 997),
	); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.erofs", n.CFS, image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	// docker has 997 on the host, so the groups of the image move along; 995 ends the chain and gets a number of its own.
	n.Owners = copies.Owners{UID: map[uint32]uint32{101: 110}, GID: map[uint32]uint32{997: 996, 996: 995, 995: 940}}
	return n
}

// TestImageShowsHostNumbers: files of the image belong to the same names as in the image, whatever numbers these have
// on the host; set-id bits, capabilities, ACLs and hard links are as in the image.
func TestImageShowsHostNumbers(t *testing.T) {
	n := numbersImage(t)
	inOwnNamespace(t, func() {
		tree, err := n.joinGraft()
		if err != nil {
			t.Error(err)
			return
		}
		defer tree.Close()
		for name, want := range map[string]struct{ uid, gid, mode, links uint32 }{
			"usr/bin/crontab":  {0, 996, 0o2755, 2},
			"usr/bin/hardlink": {0, 996, 0o2755, 2},
			"usr/bin/helper":   {0, 995, 0o2750, 1},
			"usr/bin/third":    {0, 940, 0o755, 1},
			"usr/bin/set-uid":  {110, 0, 0o4755, 1},
			"usr/bin/capable":  {0, 0, 0o755, 1},
			"var/lib/db/data":  {110, 996, 0o755, 1},
		} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(tree.Path(), name), &st); err != nil {
				t.Error(err)
			} else if st.Uid != want.uid || st.Gid != want.gid || st.Mode&0o7777 != want.mode || uint32(st.Nlink) != want.links {
				t.Errorf("%s is %d:%d %o, %d links; want %v", name, st.Uid, st.Gid, st.Mode&0o7777, st.Nlink, want)
			}
		}
		buf := make([]byte, 256)
		size, err := unix.Getxattr(filepath.Join(tree.Path(), "usr/share/acl"), "system.posix_acl_access", buf)
		if err != nil || size < 28 || binary.LittleEndian.Uint32(buf[4+2*8+4:]) != 996 {
			t.Errorf("the ACL is %v, %v; want the group 996 in it", buf[:max(size, 0)], err)
		}
		size, err = unix.Getxattr(filepath.Join(tree.Path(), "usr/bin/capable"), "security.capability", buf)
		if err != nil || size < 8 || binary.LittleEndian.Uint32(buf[4:]) != 1<<13 {
			t.Errorf("the capability is %v, %v", buf[:max(size, 0)], err)
		}
		pristine, err := n.Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer pristine.Close()
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(pristine.Path(), "usr/bin/crontab"), &st); err != nil || st.Gid != 997 {
			t.Errorf("the pristine image shows the group %d, %v; merges compare with 997", st.Gid, err)
		}
	})
}

// TestSeedFromHostNumbers: what is seeded belongs to the host's numbers once, not translated twice.
func TestSeedFromHostNumbers(t *testing.T) {
	n := numbersImage(t)
	inOwnNamespace(t, func() {
		state := t.TempDir()
		if err := errors.Join(os.Mkdir(assemblyParent(), 0o755), os.MkdirAll(state+"/var", 0o755)); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount(state+"/var", "/var", "", unix.MS_BIND, ""); err != nil {
			t.Error(err)
			return
		}
		n.Persist = []string{"/var"}
		n.HostMount = "/var/host"
		if err := Arm(n); err != nil {
			t.Error(err)
			return
		}
		var st unix.Stat_t
		if err := unix.Stat("/var/lib/db/data", &st); err != nil || st.Uid != 110 || st.Gid != 996 {
			t.Errorf("seeded as %d:%d, %v; want 110:996", st.Uid, st.Gid, err)
		}
	})
}

func assemblyParent() string { return filepath.Dir(assembly) }

// TestNumbersThatCannotBeShown: two names of the image with one number are refused, but keep no host from its way back.
func TestNumbersThatCannotBeShown(t *testing.T) {
	n := numbersImage(t)
	n.Owners = copies.Owners{GID: map[uint32]uint32{997: 996, 996: 996}}
	inOwnNamespace(t, func() {
		if err := os.MkdirAll(assemblyParent(), 0o755); err != nil {
			t.Error(err)
			return
		}
		if err := n.Preflight(); !errors.Is(err, ErrNumbers) {
			t.Errorf("preflight: %v", err)
		}
		if err := Arm(n); !errors.Is(err, ErrNumbers) {
			t.Errorf("a new root: %v", err)
		}
		n.Return = true
		if err := Arm(n); err != nil {
			t.Errorf("a root that ran before: %v", err)
		}
	})
}
