package report

import (
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/verify/printable"
)

// adoptedHost is what becomes of a host root that has something in every group.
var adoptedHost = adoption.Report{Root: "sha256-" + strings.Repeat("a1", 32), Groups: []adoption.Group{
	{Name: "people", Comes: []string{"user alice", "user ansible", "group docker"},
		Stays: []adoption.Stay{{What: "user exporter (962)", Why: "it serves a program that the image does not have",
			Keep: "put the program into the image"}}},
	{Name: "access", Comes: []string{"/etc/ssh/sshd_config", "/etc/ssh/ssh_host_rsa_key", "/etc/ssh/keys/",
		"/etc/pam.d/sshd"}},
	{Name: "network"},
	{Name: "disks", Comes: []string{"/etc/fstab"}, Changes: []string{"fstab: the swap file /swap.img is not used: " +
		"it lies on the host root, which is read-only for an image; a swap file below /var stays"}},
	{Name: "services", Stays: []adoption.Stay{
		{What: "site-agent.service", Why: "its unit is not in the new root; it listens on tcp:8080", Refuses: true,
			Keep: `[state] adopt "systemd/system/site-agent.service"; [state] persist "/opt"`},
		{What: "apt-daily.timer", Why: "not missed: fetches lists of packages; an image brings its packages"},
	}},
	{Name: "files", Stays: []adoption.Stay{
		{What: "/data", Bytes: 12_300_000_000, AtLeast: true, Keep: `[state] persist "/data"`},
		{What: "/opt/agent", Bytes: 12_300, Keep: `[state] persist "/opt"`},
		{What: "/etc/nginx/sites-enabled/shop", Why: "it was changed or added on this host", Keep: `[state] adopt "a"`},
		{What: "/etc/motd", Why: "it was changed or added on this host", Keep: `[state] adopt "motd"`},
		{What: "/etc/alternatives/awk", Why: "packages installed it"},
		{What: "/etc/alternatives/editor", Why: "packages installed it"},
		{What: "/etc/alternatives/pager", Why: "packages installed it"},
		{What: "/etc/alternatives/vi", Why: "packages installed it"},
	}},
}}

// TestAdoptText: the whole report fits a terminal, and names everything.
func TestAdoptText(t *testing.T) {
	golden(t, "adopt", func(w io.Writer) { Adopt(w, adoptedHost) })
	shown := page(t, func(w io.Writer) { Adopt(w, adoptedHost) })
	for line := range strings.Lines(shown) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > printable.Columns {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	text := printable.Unwrap(shown)
	for _, g := range adoptedHost.Groups {
		for _, s := range g.Stays {
			if name := s.What[strings.LastIndex(s.What, "/")+1:]; !strings.Contains(text, name) {
				t.Errorf("%s is not named", s.What)
			}
		}
	}
}
