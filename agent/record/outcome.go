package record

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// AnnouncedBy reports whether a record says that the host is about to make this very switch.
func (s *Switch) AnnouncedBy(r *Record) bool { return r.Phase == PhaseArmed && r.Switch.At.Equal(s.At) }

// Err is what a switch that ended in going back is told as.
func (r Result) Err() error {
	if r.Back == "" {
		return fmt.Errorf("%w: %s: %s; there is no other good root to go back to", ErrUnhealthy, r.Target, r.Reason)
	}
	return fmt.Errorf("%w: %s: %s; the host went back to %s", ErrUnhealthy, r.Target, r.Reason, r.Back)
}

// Proved records that a root is good.
func (r *Record) Proved(root string) error {
	if err := r.Advance(CauseProved); err != nil {
		return err
	}
	if r.Staged == root {
		r.Staged = ""
	}
	delete(r.Bad, root)
	delete(r.Attempts, root)
	// What the host goes back from by itself is no good any more, or is one that a boot of the kernel could not resume: that
	// stays the last good root, for the next boot.
	if r.Switch.Verb != VerbBack || r.Switch.Named {
		r.MarkGood(root)
		r.Resume = nil
	}
	return nil
}

// GiveUp ends a switch that failed. A root that systemd did not accept is bad: it would not have it the next time
// either. So is one that never became good in as many attempts as there are. That a boot of the kernel came in the way of
// going back changes nothing about why.
func (r *Record) GiveUp(c Cause, outcome level.Outcome, reason string, now time.Time) error {
	if err := r.Advance(c); err != nil {
		return err
	}
	target := r.Switch.Target
	if r.Switch.Verb != VerbBack || outcome != level.Rebooted {
		r.Last = &Result{Outcome: outcome, Reason: reason, Target: target, At: now}
	}
	switch {
	case outcome == level.FellBack:
		r.MarkBad(target, Bad{Reason: reason, At: now})
	case outcome == level.NotArmed, outcome == level.Rebooted && c == CauseMissed && !r.Switch.Armed:
		r.CountFailure(target, reason)
	case r.Attempts[target] >= MaxAttempts:
		r.MarkBad(target, Bad{At: now, Reason: fmt.Sprintf("it was tried %d times and did not become good; the last time, %s",
			r.Attempts[target], reason)})
	}
	return nil
}

// CountFailure counts a switch that is not the root's fault: it never ran.
func (r *Record) CountFailure(root, reason string) {
	r.ForgiveAttempt(root)
	r.Failed[root] = Failed{r.Failed[root].Times + 1, reason}
}

// ForgiveAttempt takes an attempt back that is not the root's.
func (r *Record) ForgiveAttempt(root string) {
	if r.Attempts[root]--; r.Attempts[root] <= 0 {
		delete(r.Attempts, root)
	}
}

// Landed tells that the kernel was booted to switch to this root, and that the host has not gone on into it yet.
func (r *Record) Landed(id string, f facts.Facts) bool {
	return f.Root == switcher.HostRoot && r.Last != nil && r.Last.Outcome == level.Landed && r.Last.Target == id
}

// ResumeTarget decides where a boot of the kernel goes on to, "" for nowhere, and why; landed tells that the kernel was booted for
// the target of the last switch. A root that is being tried is never
// resumed into: it has to be good first.
func (r *Record) ResumeTarget(f facts.Facts, landed bool) (to, verb, why string) {
	last := r.LastGood()
	refused := level.DecideHost(f).Refused()
	switch {
	case f.Root != switcher.HostRoot:
		return "", "", fmt.Sprintf("%s is mounted at /, not the mutable host", f.Root)
	case r.Moving():
		return "", "", "a switch to the mutable host is not confirmed yet"
	case !landed && last == switcher.HostRoot:
		return "", "", "the mutable host is the last good root"
	case len(refused) > 0: // the shutdown would hang at every boot
		return "", "", strings.Join(refused, "; ")
	case landed:
		return r.Last.Target, VerbApply, "the kernel was booted for it"
	case r.ResumeAttempts(last) >= MaxAttempts:
		return "", "", fmt.Sprintf("%s was resumed %d times and did not become good; `updatectl apply` or `updatectl rollback` goes on", last, r.ResumeAttempts(last))
	}
	return last, VerbResume, "it is the last good root"
}

// RolledBack is why a root is bad that the operator left. Records of older agents have nothing but this text.
const RolledBack = "rolled back from by the operator"

// Departure is why a root that is being tried is left.
type Departure struct {
	Reason string `json:"reason"`
	// RolledBack: the operator left it; otherwise it is unhealthy.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// Event is what the history calls it.
func (d Departure) Event() string {
	if d.RolledBack {
		return EventRolledBack
	}
	return EventUnhealthy
}

// EndsTrial tells whether a roll-back ends the trial of a root that has not been good.
func (r *Record) EndsTrial(root string) bool {
	return r.Phase == PhaseTrying && !slices.Contains(r.Good, root) && r.WayBack() != ""
}
