package pid1

import (
	"strings"
	"testing"
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
		"docker-" + id + ".scope":        {What: "container", Name: "0a1b2c3d0a1b"},
		"libpod-" + id + ".scope":        {What: "container", Name: "0a1b2c3d0a1b"},
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
