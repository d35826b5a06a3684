package adoption

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/behind"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// ordinary makes the tree of an ordinary server, and returns what becomes of it at any image.
func ordinary(t *testing.T) (*Report, Adoption) {
	t.Helper()
	tree := t.TempDir()
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n" +
			"exporter:x:962:962::/nonexistent:/usr/sbin/nologin\n",
		"etc/group": "root:x:0:\nalice:x:1000:\nexporter:x:962:\n", "etc/shells": "/bin/bash\n",
		"etc/shadow": "root:*:1::::::\nalice:$y$x:1::::::\nexporter:!:1::::::\n", "etc/gshadow": "root:*::\n",
		"etc/login.defs": "UID_MIN 1000\nUID_MAX 60000\n", "etc/hostname": "web", "etc/ssh/sshd_config": "Port 2222\n",
		"etc/systemd/network/10.network": "[Match]\n", "etc/fstab": "/swap.img none swap sw 0 0\n/dev/vdb /data ext4\n",
		"swap.img": "x", "data/db": "on its own disk", "opt/agent/run": "x", "usr/local/bin/tool": "x", "srv/www": "x",
		"etc/systemd/system/agent.service": "[Service]\nExecStart=/opt/agent/run\n",
		"etc/systemd/system/old.service":   "[Service]\nExecStart=/usr/local/bin/tool\n",
		"etc/nginx/nginx.conf":             "as installed", "etc/nginx/sites-enabled/shop": "added here",
		"var/lib/dpkg/info/nginx.list": "/etc\n/etc/nginx\n/etc/nginx/nginx.conf\n",
	} {
		testtree.File(t, tree, name, text)
	}
	if err := os.MkdirAll(filepath.Join(tree, "etc/systemd/system/multi-user.target.wants"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{"agent.service", "old.service"} {
		link := filepath.Join(tree, "etc/systemd/system/multi-user.target.wants", unit)
		if err := os.Symlink("../"+unit, link); err != nil {
			t.Fatal(err)
		}
	}
	m := machine.Host(tree, record.StateDir)
	a := Adoption{Host: host.On(m, zap.NewNop())}
	a.Config = config.Default()
	next := assembly.Next{Persist: a.Config.State.Persist, HostMount: "/.updatectl/host"}
	change := machine.EtcChange{Next: next,
		Current: filepath.Join(tree, "etc"), Adopt: a.Config.AdoptedPaths()}
	planned, err := m.Trees.PlanEtc(change)
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.Of(change, planned)
	if err != nil {
		t.Fatal(err)
	}
	return report, a
}

// TestOf: the report names all of a host root, each thing in its group, with how to keep it.
func TestOf(t *testing.T) {
	report, _ := ordinary(t)
	has := func(group string, list func(Group) []string, want string) {
		t.Helper()
		for _, g := range report.Groups {
			if g.Name == group && !slices.ContainsFunc(list(g), func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("%s lacks %q: %+v", group, want, g)
			}
		}
	}
	comes := func(g Group) []string { return g.Comes }
	changes := func(g Group) []string { return g.Changes }
	stays := func(g Group) (list []string) {
		for _, s := range g.Stays {
			list = append(list, strings.Join([]string{s.What, s.Why, s.Keep}, "|"))
		}
		return list
	}
	has(people, comes, "user alice")
	has(people, stays, "user exporter (962)|")
	has(access, comes, "/etc/ssh/")
	has(network, comes, "/etc/systemd/network/")
	has(network, comes, "/etc/hostname")
	has(disks, comes, "/etc/fstab")
	has(disks, changes, "/swap.img")
	has(services, stays, `agent.service|its unit is not in the new root|[state] adopt "systemd/system/agent.service", `)
	has(services, stays, `[state] persist "/opt"`)
	has(files, stays, `/opt/agent||[state] persist "/opt"`)
	has(files, stays, "/usr/local/bin/tool||put it into the image")
	has(files, stays, "/swap.img||put it into the image, or move it")
	has(files, stays, "/etc/nginx/sites-enabled/|"+wasChanged+`|[state] adopt "nginx/sites-enabled/"`)
	has(files, stays, "/etc/nginx/|"+asPackaged)
	for _, g := range report.Groups {
		for _, s := range stays(g) {
			if strings.HasPrefix(s, "/data") || strings.HasPrefix(s, "/srv") {
				t.Errorf("what comes along stays behind: %s", s)
			}
		}
	}
}

// TestSnippet: the [state] table is one that the agent takes, and keeps what the report says it does.
func TestSnippet(t *testing.T) {
	report, a := ordinary(t)
	file := testtree.File(t, t.TempDir(), "state.toml", report.TOML)
	c, err := config.Load(a.Path, file)
	if err != nil {
		t.Fatalf("%v in\n%s", err, report.TOML)
	}
	want := []string{"systemd/system/agent.service", "systemd/system/multi-user.target.wants/agent.service"}
	if !slices.Contains(c.State.Persist, "/opt") || !slices.Contains(c.State.Persist, "/var") ||
		!slices.Equal(c.State.Adopt, want) || !strings.Contains(report.TOML, "# old.service needs /usr/local/bin/tool in") ||
		strings.Count(report.TOML, `"systemd/system/old.service"`) != 1 ||
		!strings.Contains(report.TOML, `#    "nginx/sites-enabled",`) {
		t.Errorf("it is\n%s", report.TOML)
	}
	var any map[string]any
	if _, err := toml.Decode(report.TOML, &any); err != nil || len(any) != 1 {
		t.Errorf("%v: %v", any, err)
	}
}

// TestSnippetOfOddNames: the [state] table is TOML whatever the files are called, also when its comments are moved to
// adopt. Go's own escapes are not all those of TOML.
func TestSnippetOfOddNames(t *testing.T) {
	a := &Adoption{Host: host.On(machine.Host(t.TempDir(), record.StateDir), zap.NewNop())}
	named := []string{"new\nline", "tab\t", "bell\a", "vertical\v", "escape\x1b", "del\x7f",
		`quo"te\\`, "<&>", "ü\u00a0", "\U000e0001"}
	text := a.snippet(behind.Report{Paths: []behind.Path{{Path: "/da\xffta"}, {Path: "/bell\a"}},
		Changed: append([]string{"b\xffd"}, named...)})
	_, comments, _ := strings.Cut(text, "as it is here:\n")
	var got struct {
		State struct{ Persist []string }
		Adopt []string
	}
	if _, err := toml.Decode("adopt = [\n"+strings.ReplaceAll(comments, "#    ", "")+"]\n"+text, &got); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !slices.Equal(got.Adopt, named) || !slices.Equal(got.State.Persist, []string{"/bell\a"}) {
		t.Errorf("it names %q and %q in\n%s", got.Adopt, got.State.Persist, text)
	}
}

// TestBaseOf: what is fetched goes below /etc or a state path; for anything else, the answer says what is needed.
func TestBaseOf(t *testing.T) {
	a := Adoption{Host: host.On(machine.Host(t.TempDir(), record.StateDir), zap.NewNop())}
	a.Config = config.Default()
	a.Config.State.Persist = append(a.Config.State.Persist, "/opt")
	for p, want := range map[string]string{
		"/etc/nginx/nginx.conf": "/etc", "/srv/www": "/srv", "/opt/app": "comes along at the next switch",
		"/data/db": `add "/data" to [state] persist`, "/usr/local/bin/x": "comes from the image",
		"/etc":      "not the absolute path",
		"/etc/../x": "not the absolute path", "etc/x": "not the absolute path", "/etc/shadow": "useradd(8)",
	} {
		base, err := a.baseOf(p, []string{"/var", "/srv"})
		if base != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v; want %q", p, base, err, want)
		}
	}
}

// TestGroupOf: paths below /etc, and sentences about them, are in the group where a person looks for them.
func TestGroupOf(t *testing.T) {
	for name, want := range map[string]string{
		"sudoers.d/x": people, "ssh/sshd_config": access, "systemd/system/srv.mount": disks,
		"systemd/system/a.wants/b.mount": disks,
		"systemd/system/app.service":     services, "hosts": network, "hosts.allow": access,
		"nginx/": files, "cron.d/x": services,
		"cron.allow": people, "systemd/network/": network,
	} {
		if got := groupOf(name); got != want {
			t.Errorf("%s is in %s, want %s", name, got, want)
		}
	}
	for note, want := range map[string]string{
		"fstab: the swap file": disks, "/var/lib/docker: what is mounted": disks, "passwd: the shell": people,
		"a b: c": files,
	} {
		if got := groupOfNote(note); got != want {
			t.Errorf("%q is in %s, want %s", note, got, want)
		}
	}
}
