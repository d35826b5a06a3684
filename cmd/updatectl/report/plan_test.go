package report

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// TestSlowText: the unit that is slow is not lost among those with the default timeout.
func TestSlowText(t *testing.T) {
	var out bytes.Buffer
	slowText(&out, []pid1.Blocker{{Unit: "a.service", Reason: "long", Default: true},
		{Unit: "db.service", Reason: "longer"}, {Unit: "b.service", Reason: "long", Default: true}})
	want := "Slow\tdb.service: longer\n" +
		"Slow\t2 units only by systemd's default stop timeout, which is longer than [switch] shutdown-deadline\n"
	if out.String() != want {
		t.Errorf("it is %q, want %q", out.String(), want)
	}
}

// recorded reads a distribution's facts, as a host and as an image.
func recorded(t *testing.T, name string) (facts.Facts, level.Target) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../switcher/level/testdata/facts", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Host  facts.Facts  `json:"host"`
		Image level.Target `json:"image"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s.Host, s.Image
}

// TestPlanText: the level with its reasons, from a switch that nothing stands against to one that cannot be.
func TestPlanText(t *testing.T) {
	for name, c := range map[string]struct {
		host, image string
		level       level.Level
		refused     bool
	}{
		"plan-soft":    {"debian-13", "debian-13", level.Soft, false},
		"plan-notes":   {"debian-13", "fedora-42", level.Soft, false},
		"plan-full":    {"debian-13-luks", "opensuse-microos", level.Full, false},
		"plan-policy":  {"fedora-42", "opensuse-tumbleweed", level.Full, false},
		"plan-refused": {"debian-13-luks", "rhel-10", level.None, true},
	} {
		t.Run(name, func(t *testing.T) {
			facts, _ := recorded(t, c.host)
			_, target := recorded(t, c.image)
			if name == "plan-full" {
				facts.DiskUnits = nil // with x-initrd.attach
			}
			if name == "plan-notes" {
				target.OpenFixes, target.Modules = []string{"CVE-2026-1234", "CVE-2026-5678"}, false
			}
			d := level.Decide(facts, target)
			if d.Level != c.level || len(d.Refused()) > 0 != c.refused {
				t.Errorf("level %s, refused %v", d.Level, d.Refused())
			}
			var old []renew.Old
			if name == "plan-notes" {
				old = []renew.Old{{Unit: "mdmon@md127.service", Reason: "arrays with external metadata stop without it"}}
			}
			golden(t, name, func(w io.Writer) {
				Plan(w, agent.Plan{
					Available: agent.Available{Reference: "registry.example.org/os/server:stable", Root: target.Root, Version: "7",
						Booted: facts.Root, Newer: true, Staged: true},
					Decision: &d, Etc: &etc.Report{}, From: c.host, To: c.image, Kernel: facts.KernelRelease,
					Carried: []string{"/var", "/home"}, StayOld: old,
				}, "")
			})
		})
	}
}

// TestEtcText: between two images, conflicts and notes are shown.
func TestEtcText(t *testing.T) {
	var out bytes.Buffer
	etcText(&out, etc.Report{Kept: []string{"a"}, Conflicts: []etc.Conflict{{Path: "b", Reason: "why"}},
		Notes: []string{"a note"}})
	want := "/etc\t1 change of this host kept, 1 conflict\n  conflict\t/etc/b\twhy\n  note\ta note\n"
	if out.String() != want {
		t.Errorf("it is %q, want %q", out.String(), want)
	}
}

// TestPlanNamesMerges: every merged file and every conflict, with where the image's version is.
func TestPlanNamesMerges(t *testing.T) {
	golden(t, "plan-merged", func(w io.Writer) {
		etcText(w, etc.Report{
			Kept:   []string{"nginx/nginx.conf"},
			Merged: []string{"crontab", "default/grub"},
			Conflicts: []etc.Conflict{
				{Path: "nginx/nginx.conf", Beside: "nginx/.nginx.conf.image.dpkg-new",
					Reason: "changed here and by the image, differently; the local one is kept"},
				{Path: "app", Reason: "deleted here and changed by the image; stays deleted"},
			},
		})
	})
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
