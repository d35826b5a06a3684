package switcher

import (
	"fmt"
	"slices"
	"strings"
)

// Level is how much of the host a change restarts.
type Level string

// The levels of a change.
const (
	// LevelAuto lets the checks choose.
	LevelAuto Level = "auto"
	// LevelSoft moves userspace into another root; the kernel keeps running.
	LevelSoft Level = "soft"
	// LevelFull boots the kernel again.
	LevelFull Level = "full"
)

// ParseLevel reads a level as given on the command line or in the configuration.
func ParseLevel(s string) (Level, error) {
	l := Level(s)
	if !slices.Contains([]Level{LevelAuto, LevelSoft, LevelFull}, l) {
		return "", fmt.Errorf("cannot use level %q: it is one of auto, soft, full", s)
	}
	return l, nil
}

// Verdict is what a check says about a soft switch.
type Verdict string

// The verdicts, from harmless to final.
const (
	// VerdictOK: nothing stands against it.
	VerdictOK Verdict = "ok"
	// VerdictNote: it works, and the operator should know.
	VerdictNote Verdict = "note"
	// VerdictFull: only a full reboot brings this change.
	VerdictFull Verdict = "full"
	// VerdictRefuse: this root cannot run on this host at all.
	VerdictRefuse Verdict = "refuse"
)

// Check is one question about a switch, its verdict and the reason in a sentence.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason"`
}

// Decision is the level a switch needs, with the checks it follows from.
type Decision struct {
	Level  Level   `json:"level"`
	Checks []Check `json:"checks"`
}

// Refused lists the reasons why the root cannot run here; empty when it can.
func (d Decision) Refused() []string { return d.reasons(VerdictRefuse) }

// NeedsFull lists the reasons why a soft switch is not enough.
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

// Target is what is known of the root to switch to.
type Target struct {
	// Root is its identity; HostRoot for the mutable host.
	Root string
	// Architecture is its GOARCH, "" when not known.
	Architecture string
	// Systemd is the major version of its systemd, 0 when not known.
	Systemd int
	// Init is the path of its init.
	Init string
	// Kernels are the releases it has modules for.
	Kernels []string
	// Modules tells whether the running kernel's modules are at hand to be grafted.
	Modules bool
}

// Decide chooses the level of a switch. It looks at nothing but its arguments.
func Decide(f Facts, t Target) Decision {
	d := Decision{Level: LevelSoft, Checks: []Check{
		CheckHost(f),
		checkImageSystemd(t), checkArchitecture(f, t), checkInit(t), checkKernel(f, t), checkModules(f, t),
	}}
	if len(d.NeedsFull()) > 0 {
		d.Level = LevelFull
	}
	return d
}

// CheckHost tells whether the host can soft-reboot at all, whatever the root.
func CheckHost(f Facts) Check { return checkSystemd("systemd of the host", f.Systemd, "this host") }

func checkSystemd(name string, version int, where string) Check {
	switch {
	case version == 0:
		return Check{name, VerdictRefuse, fmt.Sprintf("PID 1 of %s is not systemd, and only systemd can soft-reboot", where)}
	case version < OldestSystemd:
		return Check{name, VerdictRefuse, fmt.Sprintf("%s has systemd %d, and a soft reboot needs %d or newer", where, version, OldestSystemd)}
	}
	return Check{name, VerdictOK, fmt.Sprintf("%s has systemd %d", where, version)}
}

func checkImageSystemd(t Target) Check {
	const name = "systemd of the root"
	if t.Root == HostRoot {
		return Check{name, VerdictOK, "the host root ran this switch's systemd before"}
	}
	if t.Systemd == 0 {
		return Check{name, VerdictNote, "the image does not tell the version of its systemd"}
	}
	return checkSystemd(name, t.Systemd, "the image")
}

func checkArchitecture(f Facts, t Target) Check {
	const name = "architecture"
	if t.Architecture != "" && t.Architecture != f.Architecture {
		return Check{name, VerdictRefuse, fmt.Sprintf("the image is for %s, this host is %s", t.Architecture, f.Architecture)}
	}
	return Check{name, VerdictOK, f.Architecture}
}

func checkInit(t Target) Check {
	if t.Root != HostRoot && t.Init == "" {
		return Check{"init", VerdictRefuse, "the image has no init: neither /usr/lib/systemd/systemd nor /sbin/init can be executed"}
	}
	return Check{"init", VerdictOK, "the root has an init"}
}

func checkKernel(f Facts, t Target) Check {
	const name = "kernel"
	if t.Root == HostRoot || len(t.Kernels) == 0 || slices.Contains(t.Kernels, f.KernelRelease) {
		return Check{name, VerdictOK, fmt.Sprintf("the kernel %s keeps running", f.KernelRelease)}
	}
	return Check{name, VerdictNote, fmt.Sprintf("the kernel %s keeps running; the image's own, %s, is not started by this switch",
		f.KernelRelease, strings.Join(t.Kernels, ", "))}
}

func checkModules(f Facts, t Target) Check {
	const name = "kernel modules"
	switch {
	case t.Root == HostRoot || slices.Contains(t.Kernels, f.KernelRelease):
		return Check{name, VerdictOK, "the root has the modules of the running kernel"}
	case t.Modules:
		return Check{name, VerdictOK, fmt.Sprintf("the modules of %s are carried over, the image has none for it", f.KernelRelease)}
	}
	return Check{name, VerdictNote, fmt.Sprintf("no modules of %s are at hand: none can be loaded after the switch", f.KernelRelease)}
}
