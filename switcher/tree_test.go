package switcher

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes files below a temporary directory: a name that ends with / is a directory, "a -> b" a symbolic link.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		p := filepath.Join(dir, link)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil && isLink {
			err = os.Symlink(target, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(name), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAcceptable(t *testing.T) {
	good := []string{"etc/os-release -> ../usr/lib/os-release", "usr/lib/os-release", "usr/lib/systemd/systemd", "dev/", "proc/", "sys/", "run/"}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.HasPrefix(s, name) })
	}
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"whole":         {good, ""},
		"no os-release": {slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.Contains(s, "os-release") }), "no os-release"},
		"no init":       {without("usr/lib/systemd"), "no executable init"},
		"init by link":  {append(without("usr/lib/systemd"), "sbin -> usr/sbin", "usr/sbin/init -> ../../opt/init", "opt/init"), ""},
		"init outside":  {append(without("usr/lib/systemd"), "sbin/init -> /nowhere/init"), "no executable init"},
		"no /dev":       {without("dev"), "no directory /dev"},
		"no /run":       {without("run"), "no directory /run"},
		"/sys a link":   {append(without("sys"), "sys -> nowhere"), "no directory /sys"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Acceptable(tree(t, c.files...))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Acceptable = %v, want %q", err, c.want)
			}
		})
	}
}

func TestGraftBuild(t *testing.T) {
	image := tree(t, "usr/bin/tool", "usr/lib/systemd/system/srv.mount", "home -> var/home", "var/", "etc/", "srv/", "opt -> /srv", "data")
	if err := os.Chmod(filepath.Join(image, "usr/bin"), 0o711); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(tree(t, "agent"), "agent")
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
		if exists(filepath.Join(dir, p)) {
			t.Errorf("%s is in the graft and would hide the image's", p)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "usr/bin")); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("usr/bin must look as in the image: %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(filepath.Join(dir, AgentPath)); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the agent is not grafted: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(dir, unitDir, "x.wants/u.service")); err != nil || target != "../u.service" {
		t.Errorf("link = %q, %v", target, err)
	}
	for unit, at := range map[string]string{"srv.mount": "", "var-home.mount": "/var/home", `var-lib-a\x2db.mount`: "/var/lib/a-b"} { // /home is a link
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
	if !exists(filepath.Join(dir, "proc")) {
		t.Error("a failed build must leave the former graft")
	}
}

func TestSeed(t *testing.T) {
	image := tree(t, "lib/new/sub/file", "lib/old/image-file", "lib/dpkg/status", "log/", "spool -> log", "lib/blocked/x")
	host := tree(t, "lib/old/host-file", "lib/blocked")
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
		if exists(filepath.Join(host, p)) {
			t.Errorf("%s was seeded", p)
		}
	}
	if again, err := Seed(image, host, owners, []string{"lib/dpkg"}); err != nil || len(again) != 0 {
		t.Errorf("a second time seeded %v, %v", again, err)
	}
}
