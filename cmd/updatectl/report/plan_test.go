package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/contents"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/packages"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/verify"
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
				}, "", true)
			})
		})
	}
}

// pointRelease is a plan for a Debian host that goes to the next point release: nothing stands against it.
func pointRelease(t *testing.T) agent.Plan {
	t.Helper()
	facts, target := recorded(t, "debian-13")
	facts.Root = "sha256-" + strings.Repeat("1", 64)
	target.Kernels = []rootfs.Kernel{{Release: "6.12.120+deb13-amd64",
		Version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.120-1 (2026-12-01)"}}
	d := level.Decide(facts, target)
	changed := packages.Difference{Installed: 412, Bytes: 3_400_000,
		Added:   []packages.Package{{Name: "linux-image-6.12.120+deb13-amd64", Version: "6.12.120-1"}},
		Removed: []packages.Package{{Name: "linux-image-6.12.117+deb13-amd64", Version: "6.12.117-1"}},
	}
	for i := range 33 {
		changed.Upgraded = append(changed.Upgraded, packages.Change{Name: fmt.Sprintf("lib%c-common", 'a'+i%26),
			Architecture: "all", From: fmt.Sprintf("1.%d-1", i), To: fmt.Sprintf("1.%d-1+deb13u1", i)})
	}
	for _, name := range []string{"libc6", "openssh-client", "openssh-server", "openssl", "sudo", "systemd"} {
		changed.Upgraded = append(changed.Upgraded, packages.Change{Name: name, Architecture: "amd64",
			From: "2.41-12+deb13u1", To: "2.41-12+deb13u2"})
	}
	return agent.Plan{
		Available: agent.Available{Reference: "registry.example.org/os/server:stable", Root: target.Root, Version: "13.3",
			Booted: facts.Root, Newer: true, Staged: true,
			Vouchers: []verify.Voucher{{Signer: "release.pub", Form: verify.FormBundle}},
			Release:  &offer.Release{Header: release.Header{Sequence: 12, Notes: "Debian 13.3"}}},
		Difference: contents.Difference{Packages: &changed,
			Files: &composefs.Changes{Changed: 1832, Added: 41, Removed: 39, Files: 61_204, Bytes: 212_000_000},
			Space: &contents.Space{Written: 213_000_000, Free: 4_200_000_000}},
		Decision: &d, Etc: &etc.Report{Kept: []string{"hostname", "motd", "ssh/sshd_config"},
			Merged: []string{"crontab", "default/grub", "sudoers"}, Renumbered: []string{"user a is 1 here", "user b is 2"}},
		From: "Debian GNU/Linux 13 (trixie)", To: "Debian GNU/Linux 13 (trixie)", Kernel: facts.KernelRelease,
		Carried: []string{"/var", "/home", "/root", "/srv", "/opt", "/usr/local"},
		Units: []keep.UnitFate{{Unit: "nginx.service", Fate: keep.Restarts, Reason: "it stops, and the new root starts it"},
			{Unit: "ssh.service", Fate: keep.Restarts, Reason: "it stops, and the new root starts it"}},
		Outage: &outage.Prediction{From: 5, Outage: 1240 * ms, Ports: []outage.Expected{{Name: "tcp:22", Away: 1000 * ms},
			{Name: "tcp:80", Away: 1240 * ms}, {Name: "tcp:25", Away: 900 * ms}, {Name: "tcp:443", Away: 1230 * ms}}},
	}
}

// TestPlanFitsAScreen: an ordinary change is seen at once on a terminal of 80 columns and 24 lines, with a line for the
// prompt. With --full, everything is there.
func TestPlanFitsAScreen(t *testing.T) {
	p := pointRelease(t)
	short := func(w io.Writer) { Plan(w, p, "", false) }
	golden(t, "plan-short", short)
	golden(t, "plan-long", func(w io.Writer) { Plan(w, p, "", true) })
	if lines := strings.Count(page(t, short), "\n"); lines > 23 {
		t.Errorf("it has %d lines", lines)
	}
}

// TestPlanHidesNothingAgainstIt: what refuses or warns is in the short plan, word for word.
func TestPlanHidesNothingAgainstIt(t *testing.T) {
	facts, _ := recorded(t, "debian-13-luks")
	_, target := recorded(t, "rhel-10")
	d := level.Decide(facts, target)
	p := pointRelease(t)
	p.Decision = &d
	p.Ending = []ending.Ending{{What: "container", Name: "db"}}
	p.Blockers = []pid1.Blocker{{Unit: "db.service", Reason: "it may take 10 minutes"}}
	p.StayOld = []renew.Old{{Unit: "mdmon@md127.service", Reason: "arrays stop without it"}}
	p.Etc.Conflicts = []etc.Conflict{{Path: "app", Reason: "deleted here"}}
	p.Etc.Notes = []string{"/var/x is not carried over"}
	p.Unknown = []string{"the packages that run: why not"}
	p.Packages.Downgraded = []packages.Change{{Name: "nginx", To: "1.26"}}
	var out bytes.Buffer
	Plan(&out, p, "do this", false)
	want := []string{"do this", "Ends\t1 container: db", "db.service", "mdmon@md127.service", "/etc/app", "/var/x",
		"why not", "nginx 1.26", "removed\tlinux-image-6.12.117"}
	for _, c := range d.Checks {
		if c.Verdict != level.VerdictOK {
			want = append(want, c.Reason)
		}
	}
	for _, text := range want {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is missing in\n%s", text, out.String())
		}
	}
}

// TestPackagesText: no packages, the same ones, and a host that never had them.
func TestPackagesText(t *testing.T) {
	for want, d := range map[string]contents.Difference{
		"":                         {},
		"Packages\tthe same 412\n": {Packages: &packages.Difference{Installed: 412}},
		"Packages\t1 changed, of 1; 2kB smaller\n  new\tmusl 2\n": {Packages: &packages.Difference{Installed: 1, Bytes: -2000,
			Changed: []packages.Change{{Name: "musl", From: "1", To: "2"}}}},
	} {
		var out bytes.Buffer
		if contentsText(&out, d, false); out.String() != want {
			t.Errorf("it is %q, want %q", out.String(), want)
		}
	}
}

// TestEtcText: between two images, conflicts and notes are shown.
func TestEtcText(t *testing.T) {
	var out bytes.Buffer
	etcText(&out, etc.Report{Kept: []string{"a"}, Conflicts: []etc.Conflict{{Path: "b", Reason: "why"}},
		Notes: []string{"a note"}, Renumbered: []string{"user c is 1 here"}}, true)
	want := "/etc\t1 change of this host kept, 1 conflict\n  conflict\t/etc/b\twhy\n  note\ta note\n" +
		"  number\tuser c is 1 here\n"
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
		}, false)
	})
}

// TestEndingText: what ends is named, by its kind.
func TestEndingText(t *testing.T) {
	var out bytes.Buffer
	endingText(&out, []ending.Ending{{What: "container", Name: "db"}, {What: "container", Name: "web"},
		{What: "session", Name: "Session 3 of User alice"}, {What: ending.PacketFilter, Name: "nftables.service"}})
	if want := "Open\tnftables.service removes its rules when it stops: until it starts in the new root, nothing is " +
		"filtered\nEnds\t2 containers: db, web\nEnds\t1 session: Session 3 of User alice\n"; out.String() != want {
		t.Errorf("it is %q, want %q", out.String(), want)
	}
}
