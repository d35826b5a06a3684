package level

import (
	"fmt"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Expectation is what a switch should do. It is recorded before the switch.
type Expectation struct {
	// From and Target are the identities of the root that is left and of the new root.
	From   string `json:"from"`
	Target string `json:"target"`
	// BootID and SoftReboots are those of From.
	BootID      string `json:"boot_id"`
	SoftReboots int    `json:"soft_reboots"`
	// Level is soft or full; "" means soft.
	Level Level `json:"level,omitempty"`
	// Armed is whether the target was about to be armed: a full reboot after that may be the target's doing.
	Armed bool `json:"armed,omitempty"`
	// Start is what the full reboot of the switch starts, and the target is tried on; the zero value for what every full
	// reboot starts.
	Start Start `json:"start,omitzero"`
}

// Start is the kernel of an image that the boot loader starts once.
type Start struct {
	// Entry is its ID in the menu, and Word the parameter by which it shows on the command line.
	Entry  string        `json:"entry"`
	Word   string        `json:"word"`
	Kernel rootfs.Kernel `json:"kernel"`
}

// isRunning reports whether this is what runs.
func (s Start) isRunning(f facts.Facts) bool {
	return s.Kernel.SameBuild(rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion}) &&
		len(rootfs.MissingKargs(f.CommandLine, []string{s.Word})) == 0
}

// OnNewKernel reports whether the target is tried on a kernel that is not proven. The way back from there is a full
// reboot, which starts the kernel before it.
func (e Expectation) OnNewKernel() bool { return e.Start.Entry != "" && e.Level != Full }

// Stamp is what the arming step leaves in /run during the shutdown: that it ran, and how it ended. For a full reboot,
// the stamp is written when the reboot is requested, and is gone after it.
type Stamp struct {
	Target string `json:"target"`
	// Error is why the root could not be armed; "" when it was.
	Error string `json:"error,omitempty"`
	// At is when the arming step ended, as the time since the kernel booted, which systemd uses as well. The new root
	// starts then.
	At time.Duration `json:"at_ns,omitempty"`
	// Took is how long the arming step took.
	Took time.Duration `json:"took_ns,omitempty"`
}

// Outcome is the outcome of a switch.
type Outcome string

// The outcomes of a switch.
const (
	// Switched: the new root is mounted at /.
	Switched Outcome = "switched"
	// Pending: the soft reboot has not happened yet.
	Pending Outcome = "pending"
	// NotArmed: the new root could not be armed, so systemd soft-rebooted into the old one.
	NotArmed Outcome = "not armed"
	// FellBack: the new root was armed, but systemd started the old one again: it did not accept the new root, or could
	// not switch to it.
	FellBack Outcome = "fell back"
	// Rebooted: a full reboot happened instead of the switch, or during it.
	Rebooted Outcome = "rebooted"
	// Landed: the full reboot of a switch at level full is done; the host root runs and must still switch to the target.
	Landed Outcome = "landed"
	// OldKernel: the full reboot of a switch is done, and the kernel of the image did not come up.
	OldKernel Outcome = "old kernel"
	// Elsewhere: the root at / is neither the new one nor the one that was left.
	Elsewhere Outcome = "elsewhere"
	// Unhealthy: the new root ran, did not become good, and was rolled back.
	Unhealthy Outcome = "unhealthy"
	// RolledBack: the new root ran, and somebody rolled it back before it was confirmed.
	RolledBack Outcome = "rolled back"
	// Stuck: a unit did not stop in time, so the shutdown was cancelled; the old root still runs.
	Stuck Outcome = "stuck"
)

// Prove returns the outcome of a switch, and the reason in a sentence. What is mounted at / decides; counters and the
// stamp only explain it. stamp is nil when the arming step left none.
func Prove(e Expectation, f facts.Facts, stamp *Stamp) (Outcome, string) {
	// A restarted container has the same boot id, but its systemd counts from zero again.
	counted := f.SoftReboots >= 0 && e.SoftReboots >= 0
	rebooted := f.BootID != e.BootID || counted && f.SoftReboots < e.SoftReboots
	// The stamp of a full reboot says nothing about soft reboots: it is written when the reboot is requested.
	softRebooted := counted && f.SoftReboots > e.SoftReboots || !counted && stamp != nil && e.Level != Full
	switch {
	case f.Root == e.Target && e.Target != e.From:
		return Switched, fmt.Sprintf("%s is mounted at /", e.Target)
	case f.Root == e.Target && softRebooted && stamp != nil && stamp.Error == "":
		return Switched, fmt.Sprintf("%s is mounted at / again", e.Target)
	case e.Level == Full:
		return proveFull(e, f, rebooted || stamp == nil, softRebooted)
	case rebooted && e.Armed:
		return Rebooted, fmt.Sprintf("%s had been started, and a full reboot came before it was up: its init ended, "+
			"the kernel panicked, it rebooted the machine, or the power was cut; %s is mounted at /", e.Target, f.Root)
	case rebooted:
		return Rebooted, fmt.Sprintf("a full reboot came before the switch to %s was complete; %s is mounted at /",
			e.Target, f.Root)
	case f.Root != e.From:
		return Elsewhere, fmt.Sprintf("%s is mounted at /, neither %s nor %s", f.Root, e.Target, e.From)
	case counted && !softRebooted && e.Armed && stamp == nil: // /run is new: the container was restarted
		return Rebooted, fmt.Sprintf("%s had been started, and userspace ended before it was up; %s is mounted at /",
			e.Target, f.Root)
	case !softRebooted:
		return Pending, fmt.Sprintf("the soft reboot into %s has not happened yet", e.Target)
	case stamp != nil && stamp.Error != "":
		return NotArmed, fmt.Sprintf("%s could not be armed: %s", e.Target, stamp.Error)
	case stamp == nil:
		return NotArmed, fmt.Sprintf("systemd soft-rebooted without arming %s: the arming unit did not run to its end",
			e.Target)
	}
	return FellBack, fmt.Sprintf("%s was armed, but systemd runs %s again: it did not accept the new root",
		e.Target, e.From)
}

// proveFull returns the outcome of a switch at level full that has not reached its target. Every full reboot starts the
// host root first.
func proveFull(e Expectation, f facts.Facts, rebooted, softRebooted bool) (Outcome, string) {
	running := rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion}
	switch {
	case rebooted && f.Root == switcher.HostRoot && e.Start.Entry != "" && !e.Start.isRunning(f):
		return OldKernel, fmt.Sprintf("the kernel %s of %s did not come up: it panicked, hung or did not find the disk, "+
			"somebody chose another, or the power was cut; %s runs", e.Start.Kernel, e.Target, running)
	case rebooted && f.Root == switcher.HostRoot:
		return Landed, fmt.Sprintf("the full reboot for the switch to %s is done, and the host root must still switch to it",
			e.Target)
	case rebooted:
		return Rebooted, fmt.Sprintf("the full reboot for the switch to %s is done, and %s is mounted at /", e.Target, f.Root)
	case f.Root != e.From:
		return Elsewhere, fmt.Sprintf("%s is mounted at /, neither %s nor %s", f.Root, e.Target, e.From)
	case softRebooted:
		return NotArmed, fmt.Sprintf("systemd made a soft reboot instead of the full reboot for %s", e.Target)
	}
	return Pending, fmt.Sprintf("the full reboot into %s has not happened yet", e.Target)
}
