package level

import (
	"fmt"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Expectation is what the record says a switch was to bring about, written down before it.
type Expectation struct {
	// From and Target are the identities of the root that was left and of the one asked for.
	From   string `json:"from"`
	Target string `json:"target"`
	// BootID and SoftReboots are those of the root that was left.
	BootID      string `json:"boot_id"`
	SoftReboots int    `json:"soft_reboots"`
	// Level is soft or full; "" is soft.
	Level Level `json:"level,omitempty"`
	// Armed tells that the target was about to be armed: from then on, what ends the kernel may be the target.
	Armed bool `json:"armed,omitempty"`
}

// Stamp is what the arming step left in /run: it ran during the shutdown, and how it ended. For a full reboot it is left
// when that is asked for: it is gone once the kernel has booted.
type Stamp struct {
	Target string `json:"target"`
	// Error is why the root could not be armed; "" when it was.
	Error string `json:"error,omitempty"`
	// At is when it ended, by the clock that runs since the kernel booted, as systemd's does; the new root begins here.
	At time.Duration `json:"at_ns,omitempty"`
}

// Outcome is what became of a switch.
type Outcome string

// The outcomes of a switch.
const (
	// Switched: the root asked for is mounted at /.
	Switched Outcome = "switched"
	// Pending: the soft reboot has not happened yet.
	Pending Outcome = "pending"
	// NotArmed: systemd soft-rebooted into the same root, because the new one could not be armed.
	NotArmed Outcome = "not armed"
	// FellBack: the new root was armed and systemd ran the old one again: it did not accept the new root, or the
	// switch of roots failed.
	FellBack Outcome = "fell back"
	// Rebooted: the kernel was booted meanwhile.
	Rebooted Outcome = "rebooted"
	// Landed: the kernel was booted for a switch of level full; the host root runs and has to go on into the target.
	Landed Outcome = "landed"
	// Elsewhere: a root is mounted that is neither the one asked for nor the one left.
	Elsewhere Outcome = "elsewhere"
	// Unhealthy: the host was in the root asked for, which did not become good, and went back.
	Unhealthy Outcome = "unhealthy"
	// RolledBack: the host was in the root asked for, and somebody had it go back before that was judged.
	RolledBack Outcome = "rolled back"
	// Stuck: a unit did not stop in time and the shutdown was cancelled; the root was not left.
	Stuck Outcome = "stuck"
)

// Prove tells what became of a switch, by what is mounted at /; counters and stamps only explain it. stamp is nil when
// the arming step left none.
func Prove(e Expectation, f facts.Facts, stamp *Stamp) (Outcome, string) {
	// A container that is restarted keeps the kernel's boot id, but systemd counts from zero again.
	counted := f.SoftReboots >= 0 && e.SoftReboots >= 0
	rebooted := f.BootID != e.BootID || counted && f.SoftReboots < e.SoftReboots
	again := counted && f.SoftReboots > e.SoftReboots || !counted && stamp != nil
	switch {
	case f.Root == e.Target && e.Target != e.From:
		return Switched, fmt.Sprintf("%s is mounted at /", e.Target)
	case f.Root == e.Target && again && stamp != nil && stamp.Error == "":
		return Switched, fmt.Sprintf("%s is mounted at / again", e.Target)
	case e.Level == Full:
		return proveFull(e, f, rebooted || stamp == nil, again)
	case rebooted && e.Armed:
		return Rebooted, fmt.Sprintf("the kernel was booted when %s had been started and was not up yet: "+
			"its init ended, the kernel panicked, it rebooted the machine, or the power was cut; %s is mounted at /", e.Target, f.Root)
	case rebooted:
		return Rebooted, fmt.Sprintf("the kernel was booted before the switch to %s was done; %s is mounted at /", e.Target, f.Root)
	case f.Root != e.From:
		return Elsewhere, fmt.Sprintf("%s is mounted at /, neither %s nor %s", f.Root, e.Target, e.From)
	case counted && !again && e.Armed && stamp == nil: // it lay in /run: a container was started again in the same boot of the kernel
		return Rebooted, fmt.Sprintf("userspace ended when %s had been started and was not up yet; %s is mounted at /", e.Target, f.Root)
	case !again:
		return Pending, fmt.Sprintf("the soft reboot into %s has not happened yet", e.Target)
	case stamp != nil && stamp.Error != "":
		return NotArmed, fmt.Sprintf("%s could not be armed: %s", e.Target, stamp.Error)
	case stamp == nil:
		return NotArmed, fmt.Sprintf("systemd soft-rebooted without arming %s: the arming unit did not run to its end", e.Target)
	}
	return FellBack, fmt.Sprintf("%s was armed, but systemd runs %s again: it did not accept the new root", e.Target, e.From)
}

// proveFull tells what became of a full reboot that has not arrived in its target. Every boot of the kernel lands on the
// mutable host first.
func proveFull(e Expectation, f facts.Facts, rebooted, again bool) (Outcome, string) {
	switch {
	case rebooted && f.Root == switcher.HostRoot:
		return Landed, fmt.Sprintf("the kernel was booted for the switch to %s, and the host root has to go on into it", e.Target)
	case rebooted:
		return Rebooted, fmt.Sprintf("the kernel was booted for the switch to %s, and %s is mounted at /", e.Target, f.Root)
	case f.Root != e.From:
		return Elsewhere, fmt.Sprintf("%s is mounted at /, neither %s nor %s", f.Root, e.Target, e.From)
	case again:
		return NotArmed, fmt.Sprintf("systemd soft-rebooted instead of booting the kernel for %s", e.Target)
	}
	return Pending, fmt.Sprintf("the full reboot into %s has not happened yet", e.Target)
}
