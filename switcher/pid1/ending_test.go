package pid1

import (
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
		if got := opens(c.unit, c.properties); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
