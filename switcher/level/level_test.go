package level

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// softly returns facts and a target with which a soft switch works.
func softly() (facts.Facts, Target) {
	booted := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	policy := rootfs.Policy{Type: "targeted", Digest: strings.Repeat("ab", 32)}
	f := facts.Facts{
		Root: switcher.HostRoot, KernelRelease: "6.12.1", KernelVersion: "#1 SMP 1", Architecture: "amd64",
		Systemd: 257, ISA: 3,
		At: booted.AddDate(0, 0, 10), KernelBooted: booted,
		CommandLine: `root=/dev/vda1 quiet "dyndbg=file a.c +p" console=ttyS0`,
		SELinuxOn:   true, SELinux: policy,
	}
	t := Target{Root: "sha256-2", Architecture: "amd64", Image: rootfs.Image{
		Systemd: 257, Init: "/usr/lib/systemd/systemd", Machine: "amd64", ISA: 1,
		Kernels: []rootfs.Kernel{{Release: "6.12.1", Version: "#1 SMP 1"}},
		Kargs:   []string{"console=ttyS0"}, SELinux: policy,
	}}
	return f, t
}

// TestDecide changes the verdict of every check, from facts with which a soft switch works.
func TestDecide(t *testing.T) {
	turned := map[string]bool{}
	for name, c := range map[string]struct {
		change  func(*facts.Facts, *Target)
		check   string
		verdict Verdict
		reason  string
	}{
		"nothing against it": {
			change: func(*facts.Facts, *Target) {}, check: "kernel modules", verdict: VerdictOK,
			reason: "has the modules",
		},
		"kernel new enough": {
			change: func(_ *facts.Facts, t *Target) {
				t.KernelNeed = rootfs.KernelNeed{Version: "5.10", By: "its systemd 260"}
			},
			check: "kernel version", verdict: VerdictOK, reason: "needs 5.10 or newer (its systemd 260), and 6.12.1 runs",
		},
		"kernel too old for the image": {
			change: func(f *facts.Facts, t *Target) {
				f.KernelRelease, t.Kernels = "5.4.0-1", nil
				t.KernelNeed = rootfs.KernelNeed{Version: "5.10", By: "its systemd 260"}
			}, check: "kernel version",
			verdict: VerdictFull, reason: "needs the kernel 5.10 or newer (its systemd 260), and 5.4.0-1 runs",
		},
		"kernel too old for the publisher": {
			change: func(_ *facts.Facts, t *Target) {
				t.KernelMin, t.KernelNeed = "6.13", rootfs.KernelNeed{Version: "5.10", By: "its systemd 260"}
				t.Kernels = append(t.Kernels, rootfs.Kernel{Release: "6.14.2"})
			}, check: "kernel version",
			verdict: VerdictFull, reason: "needs the kernel 6.13 or newer (its publisher), and 6.12.1 runs",
		},
		"the image's own kernel is too old": {
			change: func(_ *facts.Facts, t *Target) { t.KernelMin = "6.13" }, check: "kernel version",
			verdict: VerdictRefuse, reason: "brings only 6.12.1: publish it with a newer kernel",
		},
		"host without systemd": {
			change: func(f *facts.Facts, _ *Target) { f.Systemd = 0 }, check: "systemd of the host",
			verdict: VerdictRefuse, reason: "not systemd",
		},
		"host of the first systemd": {
			change: func(f *facts.Facts, _ *Target) { f.Systemd = 254 }, check: "systemd of the host",
			verdict: VerdictNote, reason: "a hung root is not rolled back; 255 keeps the guard running",
		},
		"Debian 12 host": {
			change: func(f *facts.Facts, _ *Target) { f.Systemd = 252 }, check: "systemd of the host",
			verdict: VerdictRefuse, reason: "systemd 252, and a soft reboot needs 254",
		},
		"Debian 12 image": {
			change: func(_ *facts.Facts, t *Target) { t.Systemd = 252 }, check: "systemd of the root",
			verdict: VerdictRefuse, reason: "the image has systemd 252",
		},
		"unknown systemd": {
			change: func(_ *facts.Facts, t *Target) { t.Systemd = 0 }, check: "systemd of the root",
			verdict: VerdictNote, reason: "systemd is not known",
		},
		"other architecture": {
			change: func(_ *facts.Facts, t *Target) { t.Architecture = "arm64" }, check: "architecture",
			verdict: VerdictRefuse, reason: "for arm64, this host is amd64",
		},
		"init of another machine": {
			change: func(_ *facts.Facts, t *Target) { t.Machine = "arm64" }, check: "architecture",
			verdict: VerdictRefuse, reason: "init is a program for arm64, this host is amd64",
		},
		"newer processor needed": {
			change: func(_ *facts.Facts, t *Target) { t.ISA = 4 }, check: "x86-64 level", verdict: VerdictRefuse,
			reason: "needs x86-64-v4, this processor has x86-64-v3",
		},
		"variant needs a newer": {
			change: func(_ *facts.Facts, t *Target) { t.Variant = "v4" }, check: "x86-64 level",
			verdict: VerdictRefuse, reason: "needs x86-64-v4",
		},
		"just enough": {
			change: func(_ *facts.Facts, t *Target) { t.ISA = 3 }, check: "x86-64 level", verdict: VerdictOK,
			reason: "needs x86-64-v3, this processor has x86-64-v3",
		},
		"unknown processor": {
			change: func(f *facts.Facts, t *Target) { f.ISA, t.ISA = 0, 3 }, check: "x86-64 level",
			verdict: VerdictNote, reason: "the level of this processor is not known",
		},
		"no init": {
			change: func(_ *facts.Facts, t *Target) { t.Init = "" }, check: "init", verdict: VerdictRefuse,
			reason: "no init",
		},
		"newer kernel in it": {
			change:  func(_ *facts.Facts, t *Target) { t.Kernels = []rootfs.Kernel{{Release: "6.12.9", Version: "#1 SMP 9"}} },
			check:   "kernel",
			verdict: VerdictNote,
			reason:  "kernel 6.12.1 (#1 SMP 1) keeps running; this switch does not start the image's kernel, 6.12.9 (#1 SMP 9)",
		},
		"another build of it": {
			change:  func(_ *facts.Facts, t *Target) { t.Kernels[0].Version = "#1 SMP 2" },
			check:   "kernel",
			verdict: VerdictNote,
			reason:  "kernel 6.12.1 (#1 SMP 1) keeps running; the image has another build of it, #1 SMP 2",
		},
		"image without a kernel": {
			change: func(_ *facts.Facts, t *Target) { t.Kernels = nil }, check: "kernel", verdict: VerdictOK,
			reason: "keeps running",
		},
		"modules carried over": {
			change:  func(_ *facts.Facts, t *Target) { t.Kernels, t.Modules = []rootfs.Kernel{{Release: "6.12.9"}}, true },
			check:   "kernel modules",
			verdict: VerdictOK,
			reason:  "carried over",
		},
		"modules of another build": {
			change:  func(_ *facts.Facts, t *Target) { t.Kernels[0].Version, t.Modules = "#1 SMP 2", true },
			check:   "kernel modules",
			verdict: VerdictOK,
			reason:  "carried over, the image has those of another build",
		},
		"of another build only": {
			change: func(_ *facts.Facts, t *Target) { t.Kernels[0].Version = "#1 SMP 2" },
			check:  "kernel modules", verdict: VerdictNote, reason: "none can be loaded",
		},
		"of an unknown build": {
			change:  func(_ *facts.Facts, t *Target) { t.Kernels[0].Version, t.Modules = "", true },
			check:   "kernel modules",
			verdict: VerdictOK,
			reason:  "carried over, the build of the image's own is not known",
		},
		"unknown, none at hand": {
			change: func(_ *facts.Facts, t *Target) { t.Kernels[0].Version = "" }, check: "kernel modules",
			verdict: VerdictNote, reason: "of which the build is not known",
		},
		"no modules anywhere": {
			change: func(_ *facts.Facts, t *Target) { t.Kernels = nil }, check: "kernel modules",
			verdict: VerdictNote, reason: "none can be loaded",
		},
		"parameters missing": {
			change:  func(_ *facts.Facts, t *Target) { t.Kargs = []string{"quiet", "mitigations=auto", "console=ttyS1"} },
			check:   "kernel command line",
			verdict: VerdictFull,
			reason:  "wants mitigations=auto console=ttyS1, and the kernel was booted without",
		},
		"no parameters wanted": {
			change: func(_ *facts.Facts, t *Target) { t.Kargs = nil }, check: "kernel command line",
			verdict: VerdictOK, reason: "wants no kernel parameters",
		},
		"kernel too old": {
			change:  func(f *facts.Facts, _ *Target) { f.RebootBy = f.KernelBooted.AddDate(0, 0, 9) },
			check:   "kernel age",
			verdict: VerdictFull,
			reason:  "booted on 2026-03-01, and a full reboot has been due since 2026-03-10 ([switch] max-kernel-age)",
		},
		"on the very day": {
			change: func(f *facts.Facts, _ *Target) { f.RebootBy = f.At }, check: "kernel age",
			verdict: VerdictFull, reason: "since 2026-03-11",
		},
		"kernel grows old": {
			change: func(f *facts.Facts, _ *Target) { f.RebootBy = f.At.AddDate(0, 0, 1) }, check: "kernel age",
			verdict: VerdictOK, reason: "a full reboot is due by 2026-03-12",
		},
		"kernel of any age": {
			change: func(*facts.Facts, *Target) {}, check: "kernel age", verdict: VerdictOK,
			reason: "sets no limit",
		},
		"another policy": {
			change:  func(_ *facts.Facts, t *Target) { t.SELinux.Digest = strings.Repeat("cd", 32) },
			check:   "SELinux",
			verdict: VerdictFull,
			reason: "targeted (sha256 abababababab) stays loaded, and the root has another, targeted " +
				"(sha256 cdcdcdcdcdcd)",
		},
		"policy of another type": {
			change: func(_ *facts.Facts, t *Target) { t.SELinux.Type = "mls" }, check: "SELinux",
			verdict: VerdictFull, reason: "another, mls",
		},
		"no policy": {
			change: func(_ *facts.Facts, t *Target) { t.SELinux = rootfs.Policy{} }, check: "SELinux",
			verdict: VerdictFull, reason: "the root has none",
		},
		"loaded policy not known": {
			change: func(f *facts.Facts, _ *Target) { f.SELinux = rootfs.Policy{} }, check: "SELinux",
			verdict: VerdictFull, reason: "(unknown) stays loaded",
		},
		"SELinux off on the host": {
			change: func(f *facts.Facts, _ *Target) { f.SELinuxOn = false }, check: "SELinux",
			verdict: VerdictNote, reason: "off in the running kernel",
		},
		"no SELinux at all": {
			change: func(f *facts.Facts, t *Target) { f.SELinuxOn, t.SELinux = false, rootfs.Policy{} },
			check:  "SELinux", verdict: VerdictOK, reason: "it is off",
		},
		"encrypted disk": {
			change:  func(f *facts.Facts, _ *Target) { f.DiskUnits = []string{"systemd-cryptsetup@data.service"} },
			check:   "encrypted disks",
			verdict: VerdictRefuse,
			reason: "stops systemd-cryptsetup@data.service with the disk in use, which can hang for 30 " +
				"minutes, and a full reboot is followed by a soft one; set x-initrd.attach in crypttab(5)",
		},
		"volumes and an image without LVM": {
			change: func(f *facts.Facts, t *Target) {
				f.DiskLayers = []rootfs.DiskLayer{rootfs.LayerLVM, rootfs.LayerRAID}
				t.DiskLayers = []rootfs.DiskLayer{rootfs.LayerRAID}
			},
			check: "disk tools", verdict: VerdictNote, reason: "use LVM, and the image lacks the tools (package lvm2)",
		},
		"several paths and an image without their daemon": {
			change: func(f *facts.Facts, _ *Target) { f.DiskLayers = []rootfs.DiskLayer{rootfs.LayerMultipath} },
			check:  "disk tools", verdict: VerdictRefuse, reason: "(package multipath-tools)",
		},
		"all disk tools": {
			change: func(f *facts.Facts, t *Target) {
				f.DiskLayers = []rootfs.DiskLayer{rootfs.LayerLVM}
				t.DiskLayers = f.DiskLayers
			},
			check: "disk tools", verdict: VerdictOK, reason: "has the tools",
		},
		"open fixes": {
			change: func(_ *facts.Facts, t *Target) { t.OpenFixes = []string{"CVE-2026-1", "CVE-2026-2"} },
			check:  "known fixes", verdict: VerdictNote, reason: "does not have the fixes of CVE-2026-1, CVE-2026-2",
		},
		"a login would fail": {
			change: func(_ *facts.Facts, t *Target) { t.Lacking = []string{"pam_a.so, which /etc/pam.d/b names"} },
			check:  "ways in", verdict: VerdictRefuse,
			reason: "the image lacks pam_a.so, which /etc/pam.d/b names: add it to the image, or change",
		},
		"a service would vanish": {
			change: func(_ *facts.Facts, t *Target) { t.Vanishing = []string{"a.service (its unit is not in the new root)"} },
			check:  CheckServices, verdict: VerdictRefuse,
			reason: "would not run in the image: a.service (its unit is not in the new root)",
		},
		"accepted": {
			change: func(_ *facts.Facts, t *Target) { t.Accepted = []string{"a.service"} },
			check:  "accepted", verdict: VerdictNote, reason: "accepted: a.service",
		},
		"back to the host": {
			change: func(_ *facts.Facts, t *Target) { t.Root, t.Init, t.Kernels = switcher.HostRoot, "", nil },
			check:  "init", verdict: VerdictOK, reason: "has an init",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, to := softly()
			c.change(&f, &to)
			d := Decide(f, to)
			i := slices.IndexFunc(d.Checks, func(k Check) bool { return k.Name == c.check })
			if i < 0 {
				t.Fatalf("no check %q in %+v", c.check, d.Checks)
			}
			if got := d.Checks[i]; got.Verdict != c.verdict || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("check = %+v; want %s with %q", got, c.verdict, c.reason)
			}
			if refused := len(d.Refused()) > 0; refused != (c.verdict == VerdictRefuse) {
				t.Errorf("Refused = %v", d.Refused())
			}
			if none := d.Level == None; none != (c.verdict == VerdictRefuse) {
				t.Errorf("Level = %s, Refused = %v", d.Level, d.Refused())
			}
			if full := d.Level == Full; full != (c.verdict == VerdictFull) {
				t.Errorf("Level = %s, NeedsFull = %v", d.Level, d.NeedsFull())
			}
		})
		turned[c.check] = turned[c.check] || c.verdict != VerdictOK
	}
	for _, c := range checks {
		if !turned[c.name] {
			t.Errorf("no case turns the check %q", c.name)
		}
	}
}

// TestDecideHost makes only the checks of the host.
func TestDecideHost(t *testing.T) {
	f, _ := softly()
	f.RebootBy, f.DiskUnits = f.At, []string{"systemd-cryptsetup@data.service"}
	d := DecideHost(f)
	if len(d.Checks) != 3 || len(d.Refused()) != 1 || len(d.NeedsFull()) != 1 || d.Level != None {
		t.Errorf("decided %+v", d)
	}
}

func TestParseLevel(t *testing.T) {
	for _, s := range []string{"auto", "soft", "full"} {
		if l, err := ParseLevel(s); err != nil || string(l) != s {
			t.Errorf("ParseLevel(%q) = %q, %v", s, l, err)
		}
	}
	if _, err := ParseLevel("warm"); err == nil || !strings.Contains(err.Error(), "one of auto, soft, full") {
		t.Errorf("ParseLevel(warm): %v", err)
	}
}
