package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/printable"
)

var update = flag.Bool("update", false, "write the golden files")

// recorded reads a distribution's facts, as a host and as an image.
func recorded(t *testing.T, name string) (facts.Facts, level.Target) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../switcher/level/testdata/facts", name+".json"))
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

// golden compares a text with the file that keeps it, as a person would see it.
func golden(t *testing.T, name string, text func(io.Writer)) {
	t.Helper()
	var out bytes.Buffer
	c := &cli{stdout: &out, output: "text"}
	if err := c.print(name, nil, text); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("%s is not what is written now (`go test -update` writes it):\n%s", file, out.String())
	}
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
				planText(w, agent.Plan{
					Available: agent.Available{Reference: "registry.example.org/os/server:stable", Root: target.Root, Version: "7",
						Booted: facts.Root, Newer: true, Staged: true},
					Decision: &d, Etc: &etc.Report{}, From: c.host, To: c.image, Kernel: facts.KernelRelease,
					Carried: []string{"/var", "/home"}, StayOld: old,
				}, "")
			})
		})
	}
}

// TestPlanned: plan answers with the exit code that apply would end with.
func TestPlanned(t *testing.T) {
	newer := agent.Available{Newer: true}
	full := &level.Decision{Level: level.Full}
	for name, c := range map[string]struct {
		plan agent.Plan
		want int
	}{
		"nothing":                {agent.Plan{}, exitDone},
		"a live patch":           {agent.Plan{Available: agent.Available{Live: true}}, exitAvailable},
		"not staged":             {agent.Plan{Available: newer}, exitAvailable},
		"full, which apply does": {agent.Plan{Available: newer, Decision: full}, exitAvailable},
		"full, asked for first": {agent.Plan{Available: newer, Decision: full, Refusal: fmt.Errorf("%w: age",
			roots.ErrFullReboot)}, exitFullReboot},
		"refused": {agent.Plan{Available: newer, Refusal: fmt.Errorf("%w: arm64", roots.ErrIncompatible)},
			exitIncompatible},
	} {
		if got := exitCode(planned(c.plan)); got != c.want {
			t.Errorf("%s: exit code %d, want %d", name, got, c.want)
		}
	}
}

func TestKernelText(t *testing.T) {
	f, target := recorded(t, "fedora-42")
	k := renew.KernelStatus{
		Release: f.KernelRelease, Version: f.KernelVersion, At: f.At, BootedAt: f.KernelBooted,
		RebootBy: f.KernelBooted.Add(90 * 24 * time.Hour), SoftReboots: 2, Root: target.Root,
		Own:         []rootfs.Kernel{{Release: "6.14.9-300.fc42.x86_64", Version: "#1 SMP PREEMPT_DYNAMIC Thu May 29"}},
		CommandLine: f.CommandLine,
		Wanted:      []string{"quiet", "mitigations=auto"}, Missing: []string{"mitigations=auto"},
		ModulesFrom: "sha256-" + strings.Repeat("a1", 32), Microcode: "0x25",
		Policy: f.SELinux, PolicyRoot: switcher.HostRoot, OwnPolicy: rootfs.Policy{Type: "targeted",
			Digest: strings.Repeat("cd", 32)},
		Options: []facts.StaleOptions{{Module: "kvm", Loaded: "nested=1", Root: switcher.HostRoot}, {Module: "loop",
			Now: "max_loop=4", Root: switcher.HostRoot}},
		Sysctls:  []facts.StaleSysctl{{Key: "vm.swappiness", Value: "10", Root: switcher.HostRoot}},
		Profiles: []facts.StaleProfile{{Profile: "/usr/sbin/old", Root: switcher.HostRoot}},
		Units:    []renew.Old{{Unit: "site.service", Reason: "no list says how to renew it (/etc/updatectl/renew.d)"}},
	}
	golden(t, "kernel-skew", func(w io.Writer) { kernelText(w, k) })
	k.Own, k.Missing, k.ModulesFrom, k.Policy, k.OwnPolicy = []rootfs.Kernel{{Release: k.Release, Version: k.Version}},
		nil, "", rootfs.Policy{}, rootfs.Policy{}
	k.Options, k.Sysctls, k.Profiles, k.Units, k.RebootBy = nil, nil, nil, nil, time.Time{}
	golden(t, "kernel-as-it-should-be", func(w io.Writer) { kernelText(w, k) })

	k.NoModules = true
	var out bytes.Buffer
	if kernelText(&out, k); !strings.Contains(out.String(), "Modules\tnone for this kernel: no more can be loaded\n") {
		t.Errorf("a root without modules for the kernel is shown as\n%s", out.String())
	}
}

// TestKernelFlags: what names the kernel fits a terminal, and a shell reads it as the same three flags.
func TestKernelFlags(t *testing.T) {
	k := agent.LiveKernel{Release: "6.12.117+deb13-cloud-amd64",
		Version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-01)", BuildID: strings.Repeat("ab", 20)}
	var out bytes.Buffer
	c := &cli{stdout: &out}
	if err := c.print("livepatch.list", k, func(w io.Writer) { kernelFlags(w, k) }); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > printable.Columns {
			t.Errorf("wider than a terminal: %q", line)
		}
	}
	flags := strings.TrimPrefix(out.String(), "Kernel")
	got, err := exec.Command("sh", "-c", "printf '%s\n' "+flags).Output()
	want := strings.Join([]string{"--kernel-release", k.Release, "--kernel-version", k.Version,
		"--kernel-build-id", k.BuildID, ""}, "\n")
	if err != nil || string(got) != want {
		t.Errorf("a shell reads %q (%v), want %q", got, err, want)
	}
}

// TestFixText: a full reboot boots the host's kernel, so it is not promised to bring a fix.
func TestFixText(t *testing.T) {
	open := live.Fix{CVE: "CVE-2026-0001", State: live.FixOpen, RebootBy: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		By: "fix_1", Reason: "held"}
	const want = "open: needs another kernel, or the live patch fix_1, which is held; a full reboot is due by 2026-12-01"
	if got := fixText(open); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSwitchText: a switch under way is shown with where it leads and where it ends.
func TestSwitchText(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	root := "sha256-" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		s    agent.Status
		want string
	}{
		{agent.Status{Phase: record.PhaseGood}, ""},
		{agent.Status{Phase: record.PhaseArmed, Switch: &agent.SwitchStatus{Verb: "apply", Target: root, Version: "2",
			At: at, Back: "host"}},
			"Switching  to sha256-abababababab, version 2 since 10:00:00 (apply)\n"},
		{agent.Status{Phase: record.PhaseTrying, Switch: &agent.SwitchStatus{Verb: "apply", Target: root, Version: "2",
			At: at, Back: "host", Deadline: at.Add(time.Minute)}},
			"Trying  sha256-abababababab, version 2 (apply); if it is not good by 10:01:00,\n" +
				"        the host rolls back to host\n        its health is not judged yet\n"},
		{agent.Status{Phase: record.PhaseTrying, Switch: &agent.SwitchStatus{Verb: "back", Target: "host", At: at,
			Deadline: at.Add(time.Minute)}},
			"Trying  host (rolling back); if it is not good by 10:01:00, the host stays\n" +
				"        its health is not judged yet\n"},
	} {
		var out bytes.Buffer
		p := &cli{stdout: &out, output: "text"}
		if err := p.print("status", nil, func(w io.Writer) { switchText(w, c.s) }); err != nil || out.String() != c.want {
			t.Errorf("%+v is shown as %q (%v), want %q", c.s.Switch, out.String(), err, c.want)
		}
	}
}

// TestRootsText: each root is listed in one state.
func TestRootsText(t *testing.T) {
	id := func(digit string) string { return "sha256-" + strings.Repeat(digit, 64) }
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	c := &cli{stdout: &out, output: "text"}
	err := c.print("status", nil, func(w io.Writer) {
		rootsText(w, agent.Status{
			Good: []agent.RootStatus{{Root: id("1"), Version: "1"}, {Root: id("2"), Version: "2"}, {Root: "host"}},
			Bad: map[string]record.Bad{
				id("1"): {Reason: "left by the operator", At: at, RolledBack: true},
				id("3"): {Reason: "unhealthy", At: at},
			},
			Removed:    []string{id("3")},
			NotReached: map[string]record.Failed{id("3"): {Times: 2, Reason: "stuck"}, id("4"): {Times: 1, Reason: "stuck"}},
		})
	})
	const want = `Good         sha256-222222222222, version 2
             host
Left         sha256-111111111111, 2026-03-01 10:00: left by the operator
Bad          sha256-333333333333, 2026-03-01 10:00: unhealthy (removed)
Not reached  sha256-444444444444, once: stuck
`
	if err != nil || out.String() != want {
		t.Errorf("got, %v,\n%swant\n%s", err, out.String(), want)
	}
}

// TestDeafIsTheLast: that PID 1 did not answer is only reported if nothing else went wrong.
func TestDeafIsTheLast(t *testing.T) {
	if err := fmt.Errorf("%w: %w", transition.ErrFullRebootFollows, pid1.ErrUnresponsive); exitCode(err) != exitError ||
		!strings.Contains(hint(err), "the host resumes its last good root") {
		t.Errorf("an unexpected full reboot ends with %d, %s", exitCode(err), hint(err))
	}
	for want, err := range map[int]error{
		exitBlocked:   fmt.Errorf("cannot talk to systemd: %w", pid1.ErrUnresponsive),
		exitUnhealthy: fmt.Errorf("%w: going back failed: %w", record.ErrUnhealthy, pid1.ErrUnresponsive),
		exitNoSpace:   errors.Join(unix.ENOSPC, pid1.ErrUnresponsive),
		exitError:     errors.Join(pid1.ErrNoUnit, pid1.ErrUnresponsive),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v ends with %d, want %d", err, got, want)
		}
	}
	if !strings.Contains(hint(pid1.ErrUnresponsive), "try again") {
		t.Errorf("the hint is %q", hint(pid1.ErrUnresponsive))
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

// TestImageWithoutAVersion: nothing is written about a version that an image does not have.
func TestImageWithoutAVersion(t *testing.T) {
	vouchers := []verify.Voucher{{Signer: "release.pub", Form: verify.FormBundle}}
	var text strings.Builder
	availableText(&text, agent.Available{Root: "r", Vouchers: vouchers})
	availableText(&text, agent.Available{Root: "r", Vouchers: vouchers, Live: true})
	availableText(&text, agent.Available{Root: "r", Vouchers: vouchers, Newer: true})
	stagedText(&text, agent.Applied{Root: "r", From: "r", Vouchers: vouchers})
	stagedText(&text, agent.Applied{Root: "r", From: "s", Vouchers: vouchers})
	appliedText(&text, agent.Applied{Root: "r", From: "r", Vouchers: vouchers})
	recheckedText(&text, agent.Rechecked{Root: "r", Vouchers: vouchers})
	if strings.Contains(text.String(), "version") || !strings.Contains(text.String(), "Up to date: r runs, signed by") {
		t.Errorf("it is:\n%s", text.String())
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
