package ending

import (
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestEndingOf: what runs for people is named, and told from what systemd runs.
func TestEndingOf(t *testing.T) {
	id := strings.Repeat("0a1b2c3d", 8)
	for unit, want := range map[string]Ending{
		"session-3.scope":                {What: "session", Name: "the description"},
		"user@1000.service":              {What: "user manager", Name: "the description"},
		`machine-qemu\x2d2\x2dweb.scope`: {What: "virtual machine", Name: "web"},
		"machine-db.scope":               {What: "container", Name: "db"},
		"systemd-nspawn@db.service":      {What: "container", Name: "db"},
		"systemd-vmspawn@db.service":     {What: "virtual machine", Name: "db"},
		"docker-" + id + ".scope":        {What: "container", Name: id},
		"libpod-" + id + ".scope":        {What: "container", Name: id},
		"libpod-conmon-" + id + ".scope": {},
		"run-u7.scope":                   {What: "scope", Name: "run-u7 (the description)"},
		"init.scope":                     {},
		"nginx.service":                  {},
	} {
		got, ends := endingOf(unit, "the description")
		if ends != (want.What != "") || ends && (got.What != want.What || got.Name != want.Name || got.Unit != unit) {
			t.Errorf("%s is %+v, %v", unit, got, ends)
		}
	}
}

// TestNameOfContainer: docker and podman say how people call a container.
func TestNameOfContainer(t *testing.T) {
	id := func(digit string) string { return strings.Repeat(digit, 64) }
	state := t.TempDir()
	testtree.File(t, state, "docker/containers/"+id("a")+"/config.v2.json", `{"ID":"x","Name":"/web"}`)
	testtree.File(t, state, "containers/storage/overlay-containers/containers.json",
		`[{"id":"`+id("b")+`","names":["db"]},{"id":"`+id("c")+`"}]`)
	for given, want := range map[string]string{
		id("a"): "web", id("b"): "db", id("c"): "cccccccccccc", id("d"): "dddddddddddd", "lab": "lab", id("z"): id("z"),
	} {
		if got := nameOfContainer(state, given); got != want {
			t.Errorf("%s is %q, want %q", given, got, want)
		}
	}
}

// TestOpens: a packet filter opens the host if it stops, and removes its rules then.
func TestOpens(t *testing.T) {
	stop := [][]any{{"/usr/sbin/nft"}}
	for name, c := range map[string]struct {
		unit       string
		properties map[string]any
		want       bool
	}{
		"it flushes": {"nftables.service", map[string]any{"Conflicts": []string{"shutdown.target"},
			"ExecStop": stop}, true},
		"it stays at a restart": {"ufw.service", map[string]any{"ExecStop": stop}, false},
		"it has nothing to do":  {"nftables.service", map[string]any{"Conflicts": []string{"shutdown.target"}}, false},
		"it cleans up itself":   {firewalld, map[string]any{"Conflicts": []string{"shutdown.target"}}, true},
	} {
		if got := Opens(c.unit, c.properties); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestEndingOfUsers: the containers of users are named, with whose they are, and nothing else below their managers.
func TestEndingOfUsers(t *testing.T) {
	id := strings.Repeat("0a1b2c3d", 8)
	pod := "user-1000.slice/user@1000.service/user.slice/user-libpod_pod_1.slice/libpod-"
	slice := testtree.Make(t, pod+id+".scope/container/cgroup.procs", pod+"conmon-"+id+".scope/cgroup.procs",
		"user-1000.slice/session-3.scope/cgroup.procs", "user-1000.slice/user@1000.service/init.scope/cgroup.procs",
		"user-1000.slice/user@1000.service/app.slice/run-u7.scope/cgroup.procs")
	got := endingOfUsers(slice, func(uid string) string { return "user " + uid })
	want := []Ending{{"libpod-" + id + ".scope", "container", "0a1b2c3d0a1b of user 1000"}}
	if !slices.Equal(got, want) {
		t.Errorf("the containers of users are %+v, want %+v", got, want)
	}
}

// TestIsVirtual: only what systemd-machined has noted as a virtual machine is one.
func TestIsVirtual(t *testing.T) {
	dir := testtree.Make(t, "unit:machine-web.scope -> web", "unit:machine-db.scope -> db", "unit:machine-x.scope -> gone")
	testtree.File(t, dir, "web", "# This is private data. Do not parse.\nNAME=web\nCLASS=vm\n")
	testtree.File(t, dir, "db", "NAME=CLASS=vm\nCLASS=container\n")
	for unit, want := range map[string]bool{"machine-web.scope": true, "machine-db.scope": false,
		"machine-x.scope": false, "machine-unknown.scope": false} {
		if got := isVirtual(dir, unit); got != want {
			t.Errorf("%s is a virtual machine: %v", unit, got)
		}
	}
}
