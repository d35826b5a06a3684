// Package level decides at which level a host can switch to a root, and proves afterwards where it arrived. It promises
// that both are pure functions over facts: nothing is read and nothing is changed.
package level

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// isaOfVariant returns the x86-64 level in the variant of an OCI platform, 0 when it names none.
func isaOfVariant(variant string) int {
	if n := slices.Index([]string{"", "v1", "v2", "v3", "v4"}, variant); n > 0 {
		return n
	}
	return 0
}

// Level is how much of the host a change restarts.
type Level string

// The levels of a change.
const (
	// Auto lets the checks choose the level.
	Auto Level = "auto"
	// Live loads live patches into the running kernel; nothing is restarted.
	Live Level = "live"
	// Soft switches userspace to another root by a soft reboot; the kernel keeps running.
	Soft Level = "soft"
	// Full switches by a full reboot.
	Full Level = "full"
	// None means that the change is refused at any level.
	None Level = "none"
)

// ParseLevel returns the level with this name, as an operator may give it: auto, soft or full.
func ParseLevel(s string) (Level, error) {
	l := Level(s)
	if !slices.Contains([]Level{Auto, Soft, Full}, l) {
		return "", fmt.Errorf("cannot use level %q: it is one of auto, soft, full", s)
	}
	return l, nil
}

// Verdict is the result of a check.
type Verdict string

// The verdicts, from the mildest to the strictest.
const (
	// VerdictOK: a soft switch works.
	VerdictOK Verdict = "ok"
	// VerdictNote: a soft switch works, with a consequence that the operator should know.
	VerdictNote Verdict = "note"
	// VerdictFull: the change needs a full reboot.
	VerdictFull Verdict = "full"
	// VerdictRefuse: the host cannot switch to this root at all.
	VerdictRefuse Verdict = "refuse"
)

// Check is the result of one check, with the reason in a sentence.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason"`
}

// Decision is the level that a switch needs, with the checks that led to it.
type Decision struct {
	Level  Level   `json:"level"`
	Checks []Check `json:"checks"`
}

// Refused returns the reasons why the host cannot switch to the root; none when it can.
func (d Decision) Refused() []string { return d.reasons(VerdictRefuse) }

// NeedsFull returns the reasons why a soft switch is not enough.
func (d Decision) NeedsFull() []string { return d.reasons(VerdictFull) }

func (d Decision) reasons(v Verdict) []string {
	var reasons []string
	for _, c := range d.Checks {
		if c.Verdict == v {
			reasons = append(reasons, c.Reason)
		}
	}
	return reasons
}

// Target is what is known about the root to switch to.
type Target struct {
	// Root is its identity; HostRoot for the host root.
	Root string `json:"root"`
	// Architecture (GOARCH) and Variant ("v3") are what the image is published for, "" when not known.
	Architecture string `json:"architecture,omitempty"`
	Variant      string `json:"variant,omitempty"`
	rootfs.Image
	// KernelMin is the oldest kernel that the publisher names for the image (the label dev.updatectl.kernel.min).
	KernelMin string `json:"kernel_min,omitempty"`
	// Modules is whether the running kernel's modules can be carried over.
	Modules bool `json:"modules"`
	// Lacking says what this host's files need for logins, packet filters and network, and the root has not.
	Lacking []string `json:"lacking,omitempty"`
	// Vanishing names the services of the host root that would not run in the root, with the reason.
	Vanishing []string `json:"vanishing,omitempty"`
	// Accepted lists what else is lacking or vanishes, and a person has accepted.
	Accepted []string `json:"accepted,omitempty"`
	// OpenFixes lists the known fixes that neither the running kernel nor an effective live patch has.
	OpenFixes []string `json:"open_fixes,omitempty"`
}

// Decide returns the level of a switch, with the checks that led to it.
func Decide(f facts.Facts, t Target) Decision { return decide(f, t, false) }

func decide(f facts.Facts, t Target, hostOnly bool) Decision {
	d := Decision{Level: Soft}
	for _, c := range checks {
		if hostOnly && !c.host {
			continue
		}
		if verdict, reason := c.judge(f, t); verdict != "" {
			d.Checks = append(d.Checks, Check{c.name, verdict, reason})
		}
	}
	switch {
	case len(d.Refused()) > 0:
		d.Level = None
	case len(d.NeedsFull()) > 0:
		d.Level = Full
	}
	return d
}

// DecideHost is [Decide] with only the checks that concern the host, whatever the root.
func DecideHost(f facts.Facts) Decision { return decide(f, Target{}, true) }

// CheckHost returns the check whether the host's systemd can soft-reboot at all.
func CheckHost(f facts.Facts) Check {
	verdict, reason := judgeHost(f, Target{})
	return Check{checks[0].name, verdict, reason}
}

// The names of the checks that a person can overrule: what they refuse is a loss, and no fault.
const (
	CheckWaysIn   = "ways in"
	CheckServices = "services"
)

// checks are made in this order. A check that does not apply returns no verdict. The checks of the host do not use the
// target.
var checks = []struct {
	name  string
	judge func(facts.Facts, Target) (Verdict, string)
	host  bool
}{
	{"systemd of the host", judgeHost, true},
	{"systemd of the root", judgeSystemd, false},
	{"architecture", judgeArchitecture, false},
	{"x86-64 level", judgeISA, false},
	{"init", judgeInit, false},
	{"kernel", judgeKernel, false},
	{"kernel version", judgeKernelNeed, false},
	{"kernel modules", judgeModules, false},
	{"kernel command line", judgeCommandLine, false},
	{"kernel age", judgeAge, true},
	{"SELinux", judgeSELinux, false},
	{"encrypted disks", judgeDisks, true},
	{"disk tools", judgeDiskTools, false},
	{"known fixes", judgeFixes, false},
	{CheckWaysIn, judgeWaysIn, false},
	{CheckServices, judgeServices, false},
	{"accepted", judgeAccepted, false},
}

func judgeHost(f facts.Facts, _ Target) (Verdict, string) {
	if f.Systemd == switcher.OldestSystemd { // it does not know SurviveFinalKillSignal=
		return VerdictNote, fmt.Sprintf("this host has systemd %d, which kills the guard, so a hung root is not rolled "+
			"back; %d keeps the guard running", f.Systemd, switcher.OldestSystemd+1)
	}
	return judgeVersion(f.Systemd, "this host")
}

// judgeVersion checks the version of systemd in a place, which is in words.
func judgeVersion(systemd int, where string) (Verdict, string) {
	switch {
	case systemd == 0:
		return VerdictRefuse, fmt.Sprintf("PID 1 of %s is not systemd, and only systemd can soft-reboot", where)
	case systemd < switcher.OldestSystemd:
		return VerdictRefuse, fmt.Sprintf("%s has systemd %d, and a soft reboot needs %d or newer",
			where, systemd, switcher.OldestSystemd)
	}
	return VerdictOK, fmt.Sprintf("%s has systemd %d", where, systemd)
}

func judgeSystemd(_ facts.Facts, t Target) (Verdict, string) {
	switch {
	case t.Root == switcher.HostRoot:
		return VerdictOK, "the host root has run on this host before"
	case t.Systemd == 0:
		return VerdictNote, "the version of the image's systemd is not known"
	}
	return judgeVersion(t.Systemd, "the image")
}

func judgeArchitecture(f facts.Facts, t Target) (Verdict, string) {
	switch {
	case t.Architecture != "" && t.Architecture != f.Architecture:
		return VerdictRefuse, fmt.Sprintf("the image is for %s, this host is %s", t.Architecture, f.Architecture)
	case t.Machine != "" && t.Machine != f.Architecture:
		return VerdictRefuse, fmt.Sprintf("the image's init is a program for %s, this host is %s", t.Machine, f.Architecture)
	}
	return VerdictOK, f.Architecture
}

func judgeISA(f facts.Facts, t Target) (Verdict, string) {
	needed := max(t.ISA, isaOfVariant(t.Variant))
	switch {
	case f.Architecture != "amd64":
		return "", ""
	case needed > 1 && f.ISA == 0:
		return VerdictNote, fmt.Sprintf("the image needs x86-64-v%d, and the level of this processor is not known", needed)
	case needed > f.ISA && f.ISA > 0:
		return VerdictRefuse, fmt.Sprintf("the image needs x86-64-v%d, this processor has x86-64-v%d", needed, f.ISA)
	}
	return VerdictOK, fmt.Sprintf("the image needs x86-64-v%d, this processor has x86-64-v%d",
		max(needed, 1), max(f.ISA, 1))
}

func judgeInit(_ facts.Facts, t Target) (Verdict, string) {
	if t.Root != switcher.HostRoot && t.Init == "" {
		return VerdictRefuse, "the image has no init: neither /usr/lib/systemd/systemd nor /sbin/init can be executed"
	}
	return VerdictOK, "the root has an init"
}

func judgeKernel(f facts.Facts, t Target) (Verdict, string) {
	running := rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion}
	own, same := t.KernelOf(f.KernelRelease)
	switch {
	case t.Root != switcher.HostRoot && same && !own.SameBuild(running):
		return VerdictNote, fmt.Sprintf("the kernel %s keeps running; the image has another build of it, %s",
			running, own.Version)
	case t.Root == switcher.HostRoot || len(t.Kernels) == 0 || same:
		return VerdictOK, fmt.Sprintf("the kernel %s keeps running", f.KernelRelease)
	}
	var names []string
	for _, k := range t.Kernels {
		names = append(names, k.String())
	}
	return VerdictNote, fmt.Sprintf("the kernel %s keeps running; this switch does not start the image's kernel, %s",
		running, strings.Join(names, ", "))
}

func judgeModules(f facts.Facts, t Target) (Verdict, string) {
	own, same := t.KernelOf(f.KernelRelease)
	unknown := own.Version == "" || f.KernelVersion == ""
	switch {
	case t.Root == switcher.HostRoot || same && !unknown && own.Version == f.KernelVersion:
		return VerdictOK, "the root has the modules of the running kernel"
	case t.Modules && same && unknown:
		return VerdictOK, fmt.Sprintf("the modules of %s are carried over, the build of the image's own is not known",
			f.KernelRelease)
	case same && unknown:
		return VerdictNote, fmt.Sprintf("the image has modules of %s, of which the build is not known", f.KernelRelease)
	case t.Modules && same:
		return VerdictOK, fmt.Sprintf("the modules of %s are carried over, the image has those of another build",
			f.KernelRelease)
	case t.Modules:
		return VerdictOK, fmt.Sprintf("the modules of %s are carried over, the image has none for it", f.KernelRelease)
	}
	return VerdictNote, fmt.Sprintf("there are no modules of %s to carry over: none can be loaded after the switch",
		f.KernelRelease)
}

func judgeCommandLine(f facts.Facts, t Target) (Verdict, string) {
	missing := rootfs.MissingKargs(f.CommandLine, t.Kargs)
	switch {
	case len(t.Kargs) == 0:
		return VerdictOK, "the image wants no kernel parameters"
	case len(missing) == 0:
		return VerdictOK, "it has what the image wants: " + strings.Join(t.Kargs, " ")
	}
	return VerdictFull, fmt.Sprintf("the image wants %s, and the kernel was booted without; "+
		"a full reboot sets it if this host's boot loader has it", strings.Join(missing, " "))
}

// dateLayout is how reasons show dates: nobody plans a reboot by the minute.
const dateLayout = time.DateOnly

func judgeAge(f facts.Facts, _ Target) (Verdict, string) {
	switch booted := f.KernelBooted.Format(dateLayout); {
	case f.KernelBooted.IsZero():
		return "", ""
	case f.RebootBy.IsZero():
		return VerdictOK, fmt.Sprintf("it was booted on %s, and [switch] max-kernel-age sets no limit", booted)
	case f.At.Before(f.RebootBy):
		return VerdictOK, fmt.Sprintf("it was booted on %s, and a full reboot is due by %s ([switch] max-kernel-age)",
			booted, f.RebootBy.Format(dateLayout))
	default:
		return VerdictFull, fmt.Sprintf("it was booted on %s, and a full reboot has been due since %s "+
			"([switch] max-kernel-age)", booted, f.RebootBy.Format(dateLayout))
	}
}

func judgeSELinux(f facts.Facts, t Target) (Verdict, string) {
	loaded, brought := f.SELinux, t.SELinux
	switch {
	case !f.SELinuxOn && brought.Digest == "":
		return VerdictOK, "it is off, and the root has no policy"
	case !f.SELinuxOn:
		return VerdictNote, fmt.Sprintf("it is off in the running kernel, so the policy %s is not in force after the switch",
			brought)
	case brought.Digest == "":
		return VerdictFull, fmt.Sprintf("the policy %s stays loaded, and the root has none", loaded)
	case loaded != brought:
		return VerdictFull, fmt.Sprintf("the policy %s stays loaded, and the root has another, %s", loaded, brought)
	}
	return VerdictOK, fmt.Sprintf("the root has the loaded policy %s", loaded)
}

func judgeDisks(f facts.Facts, _ Target) (Verdict, string) {
	if len(f.DiskUnits) == 0 {
		return VerdictOK, "none is detached by a soft reboot"
	}
	// A full reboot does not help: from the host root, the host still gets into the root by a soft one.
	return VerdictRefuse, fmt.Sprintf("a soft reboot stops %s with the disk in use, which can hang for 30 minutes, "+
		"and a full reboot is followed by a soft one; set x-initrd.attach in crypttab(5) or veritytab(5), "+
		"which keeps the disk attached, and run `systemctl daemon-reload`", strings.Join(f.DiskUnits, ", "))
}

func judgeFixes(f facts.Facts, t Target) (Verdict, string) {
	if len(t.OpenFixes) == 0 {
		return "", ""
	}
	return VerdictNote, fmt.Sprintf("the kernel %s does not have the fixes of %s until a live patch or another "+
		"kernel brings them",
		f.KernelRelease, strings.Join(t.OpenFixes, ", "))
}

func judgeWaysIn(_ facts.Facts, t Target) (Verdict, string) {
	if len(t.Lacking) == 0 {
		return "", ""
	}
	return VerdictRefuse, fmt.Sprintf("the image lacks %s: add it to the image, or change what names it on this host",
		strings.Join(t.Lacking, "; "))
}

func judgeServices(_ facts.Facts, t Target) (Verdict, string) {
	if len(t.Vanishing) == 0 {
		return "", ""
	}
	return VerdictRefuse, "services of this host would not run in the image: " + strings.Join(t.Vanishing, "; ")
}

func judgeAccepted(_ facts.Facts, t Target) (Verdict, string) {
	if len(t.Accepted) == 0 {
		return "", ""
	}
	return VerdictNote, "the image does without what a person has accepted: " + strings.Join(t.Accepted, "; ")
}
