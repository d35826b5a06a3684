//go:build linux && amd64

package fault

import (
	"strings"
	"testing"
)

func TestNormal(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	for path, want := range map[string]string{
		"/var/lib/updatectl/.state.json.1234567":                       "/var/lib/updatectl/.state.json.*",
		"/var/lib/updatectl/objects/ab/" + digest[2:]:                  "/var/lib/updatectl/objects/*/*",
		"/var/lib/updatectl/staging/root-99887766/objects/" + digest:   "/var/lib/updatectl/staging/root-*/objects/*",
		"/var/lib/updatectl/roots/sha256-" + digest + "/root.cfs":      "/var/lib/updatectl/roots/sha256-*/root.cfs",
		"/var/lib/updatectl/roots/sha256-" + digest + "/etc.new/a/b":   "/var/lib/updatectl/roots/sha256-*/etc.new/…",
		"/var/lib/updatectl/roots/sha256-" + digest + "/graft/usr/bin": "/var/lib/updatectl/roots/sha256-*/graft/…",
		"/etc/passwd":              "/etc/…",
		"/etc/updatectl/keys/a":    "/etc/updatectl/…",
		"/var/lib/redis":           "/var/…",
		"/proc/self/fd/7/etc/fsck": "/proc/self/fd/…",
		"/run/nextroot":            "/run/nextroot",
	} {
		if got := normal(path); got != want {
			t.Errorf("%s is called %s, want %s", path, got, want)
		}
	}
}

func TestArea(t *testing.T) {
	for path, want := range map[string]string{"/var/lib/x": "/var", "/variety": "",
		"/run/updatectl/lock": "/run/updatectl", "/tmp": ""} {
		if got := area(path); got != want {
			t.Errorf("%s is in %q, want %q", path, got, want)
		}
	}
}
