package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/pid1"
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
	golden(t, "adopt", func(w io.Writer) { adoptText(w, adoptedHost) })
	var out bytes.Buffer
	c := &cli{stdout: &out, output: "text"}
	if err := c.print("adopt", nil, func(w io.Writer) { adoptText(w, adoptedHost) }); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > printable.Columns {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	text := printable.Unwrap(out.String())
	for _, g := range adoptedHost.Groups {
		for _, s := range g.Stays {
			if name := s.What[strings.LastIndex(s.What, "/")+1:]; !strings.Contains(text, name) {
				t.Errorf("%s is not named", s.What)
			}
		}
	}
}

// TestEndingText: what ends is named, by its kind.
func TestEndingText(t *testing.T) {
	var out bytes.Buffer
	endingText(&out, []pid1.Ending{{What: "container", Name: "db"}, {What: "container", Name: "web"},
		{What: "session", Name: "Session 3 of User alice"}, {What: pid1.PacketFilter, Name: "nftables.service"}})
	if want := "Open\tnftables.service removes its rules when it stops: until it starts in the new root, nothing is " +
		"filtered\nEnds\t2 containers: db, web\nEnds\t1 session: Session 3 of User alice\n"; out.String() != want {
		t.Errorf("it is %q, want %q", out.String(), want)
	}
}

// TestAdviseAccept: the hint of a loss is the exact next command and the page with the ways on, and the exit code that
// of an incompatible image.
func TestAdviseAccept(t *testing.T) {
	o := agent.ApplyOptions{From: "oci:x:y", Accept: []record.LossKind{record.LossAccess}}
	err := adviseAccept(roots.Loss{Kinds: []record.LossKind{record.LossServices}}, o)
	const next = "`updatectl apply --accept access,services --from oci:x:y`"
	advice := hint(err)
	if exitCode(err) != exitIncompatible || !strings.Contains(advice, next) ||
		!strings.Contains(advice, "`updatectl adopt`") || !strings.Contains(advice, "docs/first-apply.md") {
		t.Errorf("%v: %s", err, hint(err))
	}
	other := errors.New("x")
	if adviseAccept(other, o) != other {
		t.Error("another error gets a hint")
	}
}
