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

// AnnouncedBy reports whether the record announces this very switch: it is armed, and no later one replaced it.
func (s *Switch) AnnouncedBy(r *Record) bool { return r.Phase == PhaseArmed && r.Switch.At.Equal(s.At) }

// wasTrialOf reports whether the switch led to a root on a throw-away copy of the state; nil did not.
func (s *Switch) wasTrialOf(root string) bool { return s != nil && s.Volatile && s.Target == root }

// Err returns a switch that ended unhealthy as an [ErrUnhealthy], with the reason and where the host is now.
func (r Result) Err() error {
	if r.Back == "" {
		return fmt.Errorf("%w: %s: %s; there is no other good root to roll back to", ErrUnhealthy, r.Target, r.Reason)
	}
	return fmt.Errorf("%w: %s: %s; the host rolled back to %s", ErrUnhealthy, r.Target, r.Reason, r.Back)
}

// Proved records that a root became good, or a volatile one healthy. The error says that no root is being tried.
func (r *Record) Proved(root string) error {
	if err := r.Advance(CauseProved); err != nil {
		return err
	}
	delete(r.Attempts, root)
	if r.Switch.Volatile {
		r.Healthy = root
		return nil
	}
	if r.Staged == root {
		r.Staged = ""
	}
	delete(r.Bad, root)
	if r.Switch.Verb == VerbApply { // a rollback from here leads to the root that was left, although that may be newer
		r.Good = slices.DeleteFunc(r.Good, func(id string) bool { return id == root })
	}
	// After an automatic rollback, the list of good roots stays. The root that was left is not in it, or it is the last
	// good one and could not be resumed: the next full reboot tries that again.
	if r.Switch.Verb != VerbBack || r.Switch.Named {
		r.MarkGood(root)
		r.Resume = nil
	}
	return nil
}

// GiveUp records that a switch failed. A root that systemd did not accept is bad, because systemd would refuse it
// again. So is a root that has not become good in [MaxAttempts] attempts. If a full reboot interrupted a rollback,
// Last keeps the reason for that rollback. The error says that the cause cannot happen in the phase of the record.
func (r *Record) GiveUp(c Cause, outcome level.Outcome, reason string, now time.Time) error {
	if err := r.Advance(c); err != nil {
		return err
	}
	if outcome == level.NotArmed || outcome == level.FellBack {
		StayIn(r, r.Switch.From)
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
		r.MarkBad(target, Bad{At: now, Reason: fmt.Sprintf(
			"it was tried %d times and never became good; the last attempt: %s", r.Attempts[target], reason)})
	}
	return nil
}

// StayIn forgets that the operator wanted to leave a root by the switch that failed: the host is still in it, and no
// root is good and bad at once.
func StayIn(r *Record, root string) {
	if bad := r.Bad[root]; bad.RolledBack && bad.At.Equal(r.Switch.At) {
		delete(r.Bad, root)
	}
}

// CountFailure counts a switch that failed before its root ran, so the attempt does not count against the root.
func (r *Record) CountFailure(root, reason string) {
	r.ForgiveAttempt(root)
	r.Failed[root] = Failed{r.Failed[root].Times + 1, reason}
}

// Forgive returns the count without one attempt, which was never requested; nil when there are none left.
func (r *Resume) Forgive() *Resume {
	if r == nil || r.Attempts <= 1 {
		return nil
	}
	return &Resume{r.Root, r.Attempts - 1}
}

// ForgiveAttempt takes one attempt off the count of a root that was not to blame for it.
func (r *Record) ForgiveAttempt(root string) {
	if r.Attempts[root]--; r.Attempts[root] <= 0 {
		delete(r.Attempts, root)
	}
}

// Landed reports whether the last switch was a full reboot for this root and the host is still on its host root, so
// that a soft reboot into the root completes the switch.
func (r *Record) Landed(id string, f facts.Facts) bool {
	return f.Root == switcher.HostRoot && r.Last != nil && r.Last.Outcome == level.Landed && r.Last.Target == id
}

// ResumeTarget decides where the host goes on to after a full reboot. It returns the root ("" to stay), the verb of
// the switch ("" if there is none to go on to), and why. If landed, the full reboot was made for the target of the last
// switch. A root that is being tried is never resumed: it has to be good first.
func (r *Record) ResumeTarget(f facts.Facts, landed bool) (to, verb, why string) {
	last := r.LastGood()
	refused := level.DecideHost(f).Refused()
	switch {
	case f.SoftReboots > 0: // by hand
		return "", "", "userspace has started before since the last full reboot"
	case f.Root != switcher.HostRoot:
		return "", "", fmt.Sprintf("%s is mounted at /, not the host root", f.Root)
	case r.Moving():
		return "", "", "a switch to the host root is not confirmed yet"
	case !landed && last == switcher.HostRoot:
		return "", "", "the host root is the last good root"
	case len(refused) > 0: // otherwise the shutdown would hang after every full reboot
		return "", VerbResume, strings.Join(refused, "; ")
	case landed:
		return r.Last.Target, VerbApply, "the full reboot was made for it"
	case ResumedTooOften(r, last) != "":
		return "", VerbResume, ResumedTooOften(r, last)
	}
	return last, VerbResume, "it is the last good root"
}

// ResumedTooOften returns why a root is not resumed again, "" if it may be.
func ResumedTooOften(r *Record, root string) string {
	attempts := r.ResumeAttempts(root)
	if attempts < MaxAttempts {
		return ""
	}
	return fmt.Sprintf("%d attempts to resume %s after a full reboot failed; "+
		"run `updatectl apply` or `updatectl rollback` to leave the host root", attempts, root)
}

// RolledBack is the reason recorded for a root that the operator rolled back from. Older agents recorded no more than
// this text and compare with it, so it never changes.
const RolledBack = "rolled back from by the operator"

// Departure is why a root that is being tried is left.
type Departure struct {
	Reason string `json:"reason"`
	// RolledBack reports whether the operator left the root; otherwise it is unhealthy.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// Event returns the name of the departure in the history.
func (d Departure) Event() string {
	if d.RolledBack {
		return EventRolledBack
	}
	return EventUnhealthy
}

// EndsTrial reports whether a rollback from root ends its trial: it was applied, or has never been good, and there is a
// root to roll back to.
func (r *Record) EndsTrial(root string) bool {
	return r.Phase == PhaseTrying && (r.Switch.Verb == VerbApply || !slices.Contains(r.Good, root)) &&
		r.RollbackTarget() != ""
}
