package behind

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// tree makes a tree with these files and units, given as a path and a text, "-> target" for a link.
func tree(t *testing.T, files map[string]string) rootfs.Dir {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if target, isLink := strings.CutPrefix(text, "-> "); isLink {
			p := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		testtree.Write(t, dir, name, []byte(text), 0o755)
	}
	return rootfs.Dir(dir)
}

const (
	system = "/etc/systemd/system/"
	wants  = system + "multi-user.target.wants/"
	usr    = "/usr/lib/systemd/system/"
)

// service is the text of a unit that runs a command.
func service(command string) string { return "[Service]\nExecStart=" + command + "\n" }

// packaged returns the files of a unit that a package installs and enables.
func packaged(unit string) map[string]string {
	return map[string]string{usr + unit: service("/usr/sbin/x"), wants + unit: "-> " + usr + unit, "/usr/sbin/x": "x"}
}

// added returns the files of a unit that somebody added and enabled, with what it needs.
func added(unit, text string, needs ...string) map[string]string {
	files := map[string]string{system + unit: text, wants + unit: "-> ../" + unit}
	for _, p := range needs {
		files[p] = "x"
	}
	return files
}

// with returns files with one more.
func with(files map[string]string, name, text string) map[string]string {
	files[name] = text
	return files
}

// serves says that a service runs and listens.
func serves(unit string, ports ...string) map[string]Running {
	return map[string]Running{unit: {ports}}
}

// TestServices: what somebody added here and uses, or what serves a port, is missed when the new root lacks it, its
// program or the link that starts it. What only serves the host root is not.
func TestServices(t *testing.T) {
	const noUnit, notEnabled = "its unit is not in the new root", "it is not enabled in the new root"
	const unit, link = "systemd/system/app.service", "systemd/system/multi-user.target.wants/app.service"
	own := added("app.service", service("/opt/app/run --log /var/log/app"), "/opt/app/run")
	for name, c := range map[string]struct {
		host, image map[string]string
		gets        []string
		kept        []string
		running     map[string]Running
		want        string // "" for no such service, else why
		missed      bool
		adopt       []string
	}{
		"added here, and enabled": {host: own, want: noUnit, missed: true, adopt: []string{unit, link}},
		"adopted, without its program": {host: own, gets: []string{unit, link}, missed: true,
			want: "it would fail: the new root lacks /opt/app/run"},
		"adopted, with its program": {host: own, kept: []string{"/opt"}, gets: []string{unit, link}},
		"adopted, without its link": {host: own, kept: []string{"/opt"}, gets: []string{unit}, want: notEnabled, missed: true,
			adopt: []string{link}},
		"the image has it": {host: own, image: own},
		"a leftover unit":  {host: map[string]string{system + "app.service": service("/opt/app/run")}},
		"added here, started by hand": {host: map[string]string{system + "app.service": service("/bin/x")},
			running: serves("app.service"), want: noUnit},
		"masked": {host: with(added("app.service", ""), system+"app.service", "-> /dev/null")},
		"a script it names": {host: added("app.service", service("/usr/bin/python3 /data/app.py"), "/data/app.py"),
			gets: []string{unit, link}, want: "it would fail: the new root lacks /data/app.py", missed: true},

		"of a package, enabled": {host: packaged("web.service"), want: noUnit},
		"of a package, running": {host: packaged("web.service"), running: serves("web.service"), want: noUnit},
		"of a package, serving": {host: packaged("web.service"), running: serves("web.service", "tcp:80"), want: noUnit,
			missed: true},
		"in the image, not enabled there": {host: packaged("web.service"), image: map[string]string{usr + "web.service": "x"},
			running: serves("web.service", "tcp:80"), want: notEnabled, missed: true},
		"in the image, by its socket": {host: packaged("web.service"), running: serves("web.service", "tcp:80"),
			image: with(packaged("web.socket"), usr+"web.service", "x")},

		"a script of SysV init": {host: map[string]string{"/etc/init.d/old": "x"}, running: serves("old.service", "tcp:9"),
			want: noUnit, missed: true},
		"of a snap": {host: added("snap.lxd.activate.service", service("/usr/bin/snap run lxd.activate")), want: noUnit},
		"of a snap, serving": {host: added("snap.cloud.web.service", service("/usr/bin/snap run cloud.web")),
			running: serves("snap.cloud.web.service", "tcp:80"), want: noUnit, missed: true},
		"made at run time": {running: serves("run-u3.service", "tcp:9")},
		"a timer of a local service": {
			host: with(added("app.timer", "[Timer]\n", "/opt/job"), system+"app.service", service("/opt/job")),
			gets: []string{"systemd/system/app.timer", "systemd/system/multi-user.target.wants/app.timer"},
			want: "it would fail: the new root lacks /opt/job, /etc/systemd/system/app.service", missed: true},
		"it upgrades packages": {host: packaged("apt-daily.timer"), want: noUnit},
		"the same by another name": {host: packaged("ssh.service"), image: packaged("sshd.service"),
			running: serves("ssh.service", "tcp:22"), want: noUnit},
		"nothing the same": {host: packaged("ssh.service"), running: serves("ssh.service", "tcp:22"), want: noUnit,
			missed: true},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := ParseHostOnly(configs.HostOnly())
			if err != nil {
				t.Fatal(err)
			}
			r := Root{Host: tree(t, c.host), Image: tree(t, c.image), Kept: append(c.kept, "/var"),
				Gets: func(p string) bool { return slices.Contains(c.gets, p) }}
			found := r.Find(c.running, list, nil, time.Second).Services
			if c.want == "" {
				if len(found) != 0 {
					t.Errorf("found %+v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Why != c.want || found[0].Missed() != c.missed ||
				c.adopt != nil && !slices.Equal(found[0].Adopt, c.adopt) {
				t.Errorf("found %+v, want %q, missed %v, adopt %v", found, c.want, c.missed, c.adopt)
			}
		})
	}
}

// TestPaths: what lies outside of kept state and the image lacks is named with its size, and nothing else.
func TestPaths(t *testing.T) {
	host := tree(t, map[string]string{
		"/opt/app/run": strings.Repeat("x", 100000), "/opt/shared/file": "x", "/opt/shared/own": "x",
		"/usr/local/bin/tool": "x", "/usr/local/bin/both": "x", "/usr/bin/sh": "x", "/bin": "-> usr/bin",
		"/data/db/1": strings.Repeat("x", 100000), "/srv/www/index": "x", "/boot/vmlinuz": "x", "/var/lib/x": "x",
		"/snap/lxd/1/x": "x", "/etc/passwd": "x", "/tmp/x": "x", "/swap.img": "x", "/mnt/disk/file": "x", "/home/a/x": "x",
	})
	if err := os.MkdirAll(filepath.Join(string(host), "opt/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	image := tree(t, map[string]string{
		"/opt/shared/file": "x", "/usr/local/bin/both": "x", "/usr/bin/sh": "x", "/srv/.keep": "",
	})
	r := Root{Host: host, Image: image, Kept: []string{"/var", "/home"}, Mounts: []string{"/mnt/disk"}}
	var names []string
	for _, p := range r.paths(time.Minute) {
		names = append(names, p.Path)
		if p.AtLeast || p.Path == "/data" && (p.Bytes < 100000 || p.Bytes > 200000) {
			t.Errorf("%+v", p)
		}
	}
	want := []string{"/data", "/opt/app", "/opt/shared/own", "/snap/lxd", "/srv/www", "/swap.img", "/usr/local/bin/tool"}
	if !slices.Equal(names, want) {
		t.Errorf("found %v, want %v", names, want)
	}
	for _, p := range r.paths(-time.Second) {
		if !p.AtLeast && p.Path == "/data" {
			t.Errorf("measured without time: %+v", p)
		}
	}
	r.Image = ""
	if got := r.paths(time.Minute); len(got) != 8 { // with both tools
		t.Errorf("without an image: %+v", got)
	}
}

// TestPatience: without time, a tree of many small directories is not walked to its end.
func TestPatience(t *testing.T) {
	dir := t.TempDir()
	for i := range 200 {
		testtree.File(t, dir, fmt.Sprintf("%d/%d/file", i%10, i), "x")
	}
	late := measurer{until: time.Now().Add(-time.Second)}
	if _, files, whole := late.measure(dir); files > 20 || whole {
		t.Errorf("it looked at %d of 200 files, all: %v", files, whole)
	}
	early := measurer{until: time.Now().Add(time.Hour)}
	if _, files, whole := early.measure(dir); files != 200 || !whole {
		t.Errorf("with time, it looked at %d of 200 files, all: %v", files, whole)
	}
}

// TestChanged: among the files of /etc that stay behind, those that were changed here are separated from those that
// are as packages installed them.
func TestChanged(t *testing.T) {
	sum := func(text string) string { s := md5.Sum([]byte(text)); return hex.EncodeToString(s[:]) }
	host := tree(t, map[string]string{
		"/etc/nginx/nginx.conf": "as installed", "/etc/nginx/sites/shop": "added", "/etc/nginx/mime": "changed",
		"/etc/app/a": "x", "/etc/app/b": "x", "/etc/alternatives/editor": "-> /usr/bin/vi", "/etc/ucf.conf": "by ucf",
		"/etc/systemd/system/x.wants/a.service": "-> /usr/lib/systemd/system/a.service",
		"/usr/bin/vi":                           "x", "/usr/lib/systemd/system/a.service": "x",
		"/var/lib/dpkg/info/nginx.list": "/etc\n/etc/nginx\n/etc/nginx/nginx.conf\n/etc/nginx/mime\n",
		"/var/lib/dpkg/status": "Package: nginx\nConffiles:\n /etc/nginx/nginx.conf " + sum("as installed") +
			"\n /etc/nginx/mime " + sum("before") + "\n",
		"/var/lib/ucf/hashfile": sum("by ucf") + "  /etc/ucf.conf\n",
	})
	changed, packaged := readPackages(host).split(host, []string{
		"alternatives/editor", "app/", "nginx/", "ucf.conf", "systemd/system/x.wants/a.service",
	})
	if want := []string{"app/", "nginx/mime", "nginx/sites/"}; !slices.Equal(changed, want) {
		t.Errorf("changed %v, want %v", changed, want)
	}
	want := []string{"alternatives/editor", "nginx/", "systemd/system/x.wants/a.service", "ucf.conf"}
	if !slices.Equal(packaged, want) {
		t.Errorf("packaged %v, want %v", packaged, want)
	}
}

// TestManyPackages: a host may have more than a thousand packages, with several files each in dpkg's directory.
func TestManyPackages(t *testing.T) {
	host := tree(t, nil)
	for i := range 1200 {
		pkg := fmt.Sprintf("/var/lib/dpkg/info/pkg%d", i)
		for _, kind := range []string{".md5sums", ".postinst", ".prerm"} {
			testtree.File(t, string(host), pkg+kind, "")
		}
		testtree.File(t, string(host), pkg+".list", fmt.Sprintf("/etc/pkg%d.conf\n", i))
	}
	if got := len(readPackages(host).owner); got != 1200 {
		t.Errorf("the packages of %d files in /etc are known, want 1200", got)
	}
}

// TestRunning reads who listens from a /proc.
func TestRunning(t *testing.T) {
	proc := string(tree(t, map[string]string{
		"net/tcp": "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
			"   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n" +
			"   1: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 12 1\n",
		"net/udp": "  sl\n   0: 00000000:00A1 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 13 1\n" +
			"   0: 00000000:D431 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 14 1\n",
		"10/cgroup": "0::/system.slice/web.service\n", "10/fd/3": "-> socket:[11]", "10/fd/4": "-> socket:[12]",
		"11/cgroup": "0::/system.slice/system-snmp.slice/snmp@1.service/worker\n",
		"11/fd/3":   "-> socket:[13]", "11/fd/4": "-> socket:[14]",
		"12/cgroup": "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n",
		"13/cgroup": "0::/machine.slice/libpod-1.scope/system.slice/inner.service\n",
		"14/cgroup": "0::/\n",
	}))
	got := ReadRunning(proc)
	if len(got) != 2 || !slices.Equal(got["web.service"].Ports, []string{"tcp:80"}) ||
		!slices.Equal(got["snmp@1.service"].Ports, []string{"udp:161"}) {
		t.Errorf("running are %+v", got)
	}
}

// TestParseHostOnly: each line needs a pattern and a reason.
func TestParseHostOnly(t *testing.T) {
	list, err := ParseHostOnly("# a comment\n\na.* -> b.service c.service # why\nd.service\ntwo words # why\n")
	if len(list) != 1 || list[0].Pattern != "a.*" || len(list[0].Instead) != 2 || list[0].Why != "why" ||
		err == nil || !strings.Contains(err.Error(), `"d.service"`) || !strings.Contains(err.Error(), `"two words # why"`) {
		t.Errorf("parsed %+v (%v)", list, err)
	}
}
