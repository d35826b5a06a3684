package graft

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestBuild(t *testing.T) {
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
	n := Needs{
		Agent: agent, Units: map[string]string{"u.service": "[Unit]\n", "x.wants/u.service": "-> ../u.service"},
		MountPoints: []string{"/proc", "/home", "/etc", "/mnt/disk", "/opt/deep", "/usr/lib/modules/6.1",
			switcher.PrivateDir + "/host"},
		Stay:   []string{"/srv", "/home", "/var/lib/a-b", switcher.PrivateDir + "/host"},
		Owners: copies.Owners{GID: map[uint32]uint32{997: 940}},
	}
	if err := n.Build(image, dir, []string{"/var", "/etc"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"proc", "mnt/disk", "srv/deep", "usr/lib/modules/6.1"} {
		if st, err := os.Lstat(filepath.Join(dir, p)); err != nil || !st.IsDir() {
			t.Errorf("%s is missing in the graft: %v", p, err)
		}
	}
	private := filepath.Join(dir, switcher.PrivateDir)
	if st, err := os.Lstat(private); err != nil || st.Mode() != fs.ModeDir|0o700 || !rootfs.Exists(private+"/host") {
		t.Errorf("the directory for root only is not grafted: %v, %v", st, err)
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
	if target, err := os.Readlink(filepath.Join(dir, switcher.UnitDir, "x.wants/u.service")); err != nil ||
		target != "../u.service" {
		t.Errorf("link = %q, %v", target, err)
	}
	for unit, at := range map[string]string{
		"srv.mount":                "",
		"var-home.mount":           "/var/home", // /home is a link
		`var-lib-a\x2db.mount`:     "/var/lib/a-b",
		`\x2eupdatectl-host.mount`: switcher.PrivateDir + "/host",
	} {
		text, err := os.ReadFile(filepath.Join(dir, switcher.UnitDir, unit+".d/updatectl.conf"))
		if err != nil || !strings.Contains(string(text), "DefaultDependencies=no") {
			t.Errorf("%s does not outlive a shutdown of userspace: %q, %v", unit, text, err)
		}
		text, err = os.ReadFile(filepath.Join(dir, switcher.UnitDir, unit))
		if at == "" && err == nil || at != "" && !strings.Contains(string(text), "\nWhere="+at+"\n") {
			t.Errorf("%s, which the image has for srv only, has in the graft: %q, %v", unit, text, err)
		}
	}
	n.MountPoints = []string{"/data"}
	if err := n.Build(image, dir, nil); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a mount point that is a file: %v", err)
	}
	if !rootfs.Exists(filepath.Join(dir, "proc")) {
		t.Error("a failed build must leave the former graft")
	}
}

// TestPrivateDirOfTheImage: an image that ships the directory for root only cannot open it for others, nor lead it
// elsewhere.
func TestPrivateDirOfTheImage(t *testing.T) {
	image := testtree.Make(t, ".updatectl/host/")
	if err := os.Chmod(filepath.Join(image, switcher.PrivateDir), 0o777); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "graft")
	n := Needs{MountPoints: []string{switcher.PrivateDir + "/host"}}
	if err := n.Build(image, dir, nil); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(filepath.Join(dir, switcher.PrivateDir))
	if err != nil || st.Mode() != fs.ModeDir|0o700 {
		t.Errorf("the directory is %v, %v", st, err)
	}
	image = testtree.Make(t, "srv/", ".updatectl -> srv")
	if err := n.Build(image, dir, nil); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a link in its place: %v", err)
	}
}

// TestBuildFollowsLinks: a file goes where the links of the image lead. A directory in place of a link would hide what
// the image has behind it.
func TestBuildFollowsLinks(t *testing.T) {
	image := testtree.Make(t, "usr/lib/udev -> ../share/udev", "usr/share/udev/rules.d/own.rules")
	dir := filepath.Join(t.TempDir(), "graft")
	if err := (Needs{Files: map[string]string{"/usr/lib/udev/rules.d/x.rules": "x"}}).Build(image, dir, nil); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "usr/share/udev/rules.d/x.rules")); err != nil || string(text) != "x" {
		t.Errorf("the file is %q (%v)", text, err)
	}
	if rootfs.Exists(filepath.Join(dir, "usr/lib")) {
		t.Error("a directory hides the link of the image")
	}
}

// TestFollowsSwitches: an updatectl in an image that lacks one of the units is an older one.
func TestFollowsSwitches(t *testing.T) {
	root := t.TempDir()
	for _, step := range []struct {
		unit string
		want bool
	}{{"updatectl.timer", false}, {"updatectl-guard.service", false}, {"updatectl-arrived.service", true}} {
		testtree.File(t, root, "usr/lib/systemd/system/"+step.unit, "")
		if got := FollowsSwitches(root); got != step.want {
			t.Errorf("with %s, it follows switches: %v", step.unit, got)
		}
	}
}
