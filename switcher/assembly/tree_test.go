package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestGraftBuild(t *testing.T) {
	image := testtree.Make(t, "usr/bin/tool", "usr/lib/systemd/system/srv.mount", "home -> var/home", "var/",
		"etc/", "srv/", "opt -> /srv", "data")
	if err := os.Chmod(filepath.Join(image, "usr/bin"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(image, "usr/lib"), 0, 997); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(testtree.Make(t, "agent"), "agent")
	opened, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	image = fmt.Sprintf("/proc/self/fd/%d", opened.Fd()) // as a detached mount is named
	dir := filepath.Join(t.TempDir(), "graft")
	g := Graft{
		Agent: agent, Units: map[string]string{"u.service": "[Unit]\n", "x.wants/u.service": "-> ../u.service"},
		MountPoints: []string{"/proc", "/home", "/etc", "/mnt/disk", "/opt/deep", "/usr/lib/modules/6.1"},
		Stay:        []string{"/srv", "/home", "/var/lib/a-b"},
		Owners:      Owners{GID: map[uint32]uint32{997: 940}},
	}
	if err := g.Build(image, dir, []string{"/var", "/etc"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"proc", "mnt/disk", "srv/deep", "usr/lib/modules/6.1"} {
		if st, err := os.Lstat(filepath.Join(dir, p)); err != nil || !st.IsDir() {
			t.Errorf("%s is missing in the graft: %v", p, err)
		}
	}
	for _, p := range []string{"home", "var", "etc", "opt", "usr/bin/tool"} {
		if rootfs.Exists(filepath.Join(dir, p)) {
			t.Errorf("%s is in the graft and would hide the image's", p)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "usr/bin")); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("usr/bin must look as in the image: %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(filepath.Join(dir, AgentPath)); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the agent is not grafted: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "usr/lib"), &st); err != nil || st.Gid != 940 {
		t.Errorf("usr/lib has the group %d, %v; the image's shows the host's number 940", st.Gid, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, unitDir, "x.wants/u.service")); err != nil ||
		target != "../u.service" {
		t.Errorf("link = %q, %v", target, err)
	}
	for unit, at := range map[string]string{
		"srv.mount":            "",
		"var-home.mount":       "/var/home", // /home is a link
		`var-lib-a\x2db.mount`: "/var/lib/a-b",
	} {
		text, err := os.ReadFile(filepath.Join(dir, unitDir, unit+".d/updatectl.conf"))
		if err != nil || !strings.Contains(string(text), "DefaultDependencies=no") {
			t.Errorf("%s does not outlive a shutdown of userspace: %q, %v", unit, text, err)
		}
		text, err = os.ReadFile(filepath.Join(dir, unitDir, unit))
		if at == "" && err == nil || at != "" && !strings.Contains(string(text), "\nWhere="+at+"\n") {
			t.Errorf("%s, which the image has for srv only, has in the graft: %q, %v", unit, text, err)
		}
	}
	g.MountPoints = []string{"/data"}
	if err := g.Build(image, dir, nil); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a mount point that is a file: %v", err)
	}
	if !rootfs.Exists(filepath.Join(dir, "proc")) {
		t.Error("a failed build must leave the former graft")
	}
}

func TestSeed(t *testing.T) {
	image := testtree.Make(t, "lib/new/sub/file", "lib/old/image-file", "lib/dpkg/status", "log/",
		"spool -> log", "lib/blocked/x")
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
	owners := Owners{UID: map[uint32]uint32{110: 998}, GID: map[uint32]uint32{120: 997}}
	seeded, err := Seed(image, host, owners, []string{"lib/dpkg"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"lib/new", "log"}; !slices.Equal(seeded, want) {
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
		if rootfs.Exists(filepath.Join(host, p)) {
			t.Errorf("%s was seeded", p)
		}
	}
	if again, err := Seed(image, host, owners, []string{"lib/dpkg"}); err != nil || len(again) != 0 {
		t.Errorf("a second time seeded %v, %v", again, err)
	}
}

// TestGraftFollowsLinks: a file goes where the links of the image lead. A directory in place of a link would hide what
// the image has behind it.
func TestGraftFollowsLinks(t *testing.T) {
	image := testtree.Make(t, "usr/lib/udev -> ../share/udev", "usr/share/udev/rules.d/own.rules")
	dir := filepath.Join(t.TempDir(), "graft")
	if err := (Graft{Files: map[string]string{"/usr/lib/udev/rules.d/x.rules": "x"}}).Build(image, dir, nil); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "usr/share/udev/rules.d/x.rules")); err != nil || string(text) != "x" {
		t.Errorf("the file is %q (%v)", text, err)
	}
	if rootfs.Exists(filepath.Join(dir, "usr/lib")) {
		t.Error("a directory hides the link of the image")
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
	if _, err := Seed(image, host, Owners{}, nil); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want %v", err, unix.ENOSPC)
	}
	if left := halfCopies(t, host); !slices.Equal(left, []string{".updatectl-seed-x"}) { // it did not get there
		t.Errorf("after an error, there are %q", left)
	}
	if err := os.WriteFile(filepath.Join(image, "lib/b/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	seeded, err := Seed(image, host, Owners{}, nil)
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
	if seeded, err := Seed(image, host, Owners{}, nil); err != nil || !slices.Equal(seeded, []string{"lib"}) {
		t.Errorf("seeded %v, %v", seeded, err)
	}
}
