package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestWarnings: what is valid and most likely a mistake is named with its file and line.
func TestWarnings(t *testing.T) {
	tree := t.TempDir()
	path := func(p string) string { return filepath.Join(tree, p) }
	testtree.File(t, tree, "etc/updatectl/updatectl.toml", `[source]
image = "registry.example.org:5000/os/server"
mirrors = ["mirror.example.org/os/server:stable", "oci:/mnt/os"]
[state]
adopt = ["nginx", "/etc/apache2", "systemd/system/app*"]
[health]
active = ["nginx.service", "nginxx.service", "getty@tty1.service", "old.service"]
[switch]
hold-firewall = true
`)
	for _, name := range []string{
		"etc/nginx/nginx.conf", "etc/systemd/system/app.service", "usr/lib/systemd/system/nginx.service",
		"usr/lib/systemd/system/getty@.service", "etc/init.d/old", "etc/updatectl/health.d/required.d/10-app",
		"etc/updatectl/health.d/wanted.d/20-app",
	} {
		testtree.File(t, tree, name, "x")
	}
	testtree.File(t, tree, "etc/updatectl/hostonly.conf", "app.service # why\nother.service\n")
	c, err := Load(path, "")
	if err != nil {
		t.Fatal(err)
	}
	file := path("etc/updatectl/updatectl.toml")
	want := []string{
		file + ":2: [source] image: \"registry.example.org:5000/os/server\" names neither a tag nor a digest",
		path("etc/updatectl/health.d/required.d/10-app") + ": it is not executable; no root becomes good with it",
		path("etc/updatectl/health.d/wanted.d/20-app") + ": it is not executable; it is skipped",
		file + ":5: [state] adopt: there is no /etc/apache2 on this host",
		file + ":7: [health] active: there is no unit nginxx.service on this host",
		file + ":9: [switch] hold-firewall: no packet filter is on this host that updatectl knows: nftables.service, ufw",
		`/etc/updatectl/hostonly.conf: "other.service" is not a unit`,
	}
	got := c.Warnings(tree, true)
	for n := range max(len(got), len(want)) {
		if n >= len(got) || n >= len(want) || !strings.HasPrefix(got[n], want[n]) {
			t.Fatalf("the warnings are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if err := os.Chmod(path("etc/updatectl/health.d/required.d/10-app"), 0o755); err != nil {
		t.Fatal(err)
	}
	if later := c.Warnings(tree, false); len(later) != len(want)-2 {
		t.Errorf("when nothing is adopted any more: %v", later)
	}
	testtree.File(t, tree, "usr/lib/systemd/system/ferm.service", "x")
	if later := c.Warnings(tree, false); len(later) != len(want)-3 {
		t.Errorf("when there is a packet filter: %v", later)
	}
}
