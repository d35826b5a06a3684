package transition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// IsFileError reports whether an error means that a file could not be read or written.
func IsFileError(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	return errors.As(err, &path) || errors.As(err, &link)
}

// ErrForeign means that somebody else armed a root.
var ErrForeign = errors.New("somebody else armed")

// Arrival finds out where a host arrived, and corrects the record by it. It also moves the host, as a [Mover].
type Arrival struct{ Mover }

// DisarmLeftover disarms a root that this agent armed and that systemd did not switch to: left armed, it would turn an
// administrator's reboot into a soft reboot. What somebody else armed stays; the error is an ErrForeign then. It is an
// ErrGuardLeaves while the guard rolls back. Both are a [record.ErrBlocked], as is a soft reboot under way. It also
// thaws what an arming step that was killed has frozen: the guard would, but it may be gone, too.
func (a *Arrival) DisarmLeftover(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := a.CheckGuardStays(ctx); err != nil { // what a guard that rolls back mounts is no leftover
		return err
	}
	underWay, err := a.Machine.Systemd.ShuttingDown(ctx)
	if err != nil {
		return err
	}
	armed, err := a.Machine.Mounts.Armed()
	if err != nil {
		return err
	}
	if underWay {
		if armed != "" {
			return fmt.Errorf("%w: a soft reboot into %s is under way", record.ErrBlocked, armed)
		}
		return nil
	}
	// systemd and logind may have taken long to answer: the guard may have begun to roll back meanwhile.
	if err := a.CheckGuardStays(ctx); err != nil {
		return err
	}
	thaw(a.Host)
	if err := a.Machine.Mounts.Clear(); err != nil {
		return err
	}
	stamp := a.ReadStamp()
	// The host root is armed under the name of its disk. Once it runs, such a mount is not ours.
	toHost := rec.Phase == record.PhaseArmed && rec.Switch.Target == switcher.HostRoot ||
		stamp != nil && stamp.Error == "" && stamp.Target == switcher.HostRoot
	ours := strings.HasPrefix(armed, "sha256-") || toHost && f.Root != switcher.HostRoot
	switch {
	case armed == "":
		return nil
	case !ours:
		return fmt.Errorf("%w: %w %s at %s; unmount it, or soft-reboot into it first", record.ErrBlocked, ErrForeign,
			armed, switcher.NextRoot)
	}
	if err := a.CheckGuardStays(ctx); err != nil {
		return err
	}
	a.Log.Warn("disarming a root that an earlier switch left armed", zap.String("root", armed))
	return a.Machine.Mounts.Disarm()
}

// Reconcile corrects the record by what is mounted at /. A failed switch is recorded, and returned once as an
// ErrSwitch; later commands find it in the record.
func (a *Arrival) Reconcile(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := a.takeOverNote(f, rec); err != nil {
		return err
	}
	if left := leftTrial(rec, f); left != "" { // before its /etc is restored
		a.KeepWithdrawn(left)
		if err := a.KeepRestrictions(); err != nil { // the operator may change those of the running root
			a.Log.Warn(err.Error())
		}
	}
	defer func() {
		if !rec.Moving() {
			a.Roots.RestoreEtcs(f)
		}
	}()
	if rec.ArrivedLate(f.Root) {
		a.Log.Warn("the switch was withdrawn, but systemd made it", zap.String("root", f.Root))
		if err := rec.Advance(record.CauseLate); err != nil {
			return err
		}
	}
	switch rec.Phase {
	case record.PhaseArmed:
		return a.proveSwitch(ctx, f, rec)
	case record.PhaseTrying:
		if f.Root != rec.Switch.Target {
			reason := fmt.Sprintf("the host left %s before it was good; %s is mounted at /", rec.Switch.Target, f.Root)
			return a.recordGiveUp(rec, record.CauseLeft, level.Rebooted, reason)
		}
	}
	return nil
}

// proveSwitch records how an announced switch ended, or withdraws one that was never requested.
func (a *Arrival) proveSwitch(ctx context.Context, f facts.Facts, rec *record.Record) error {
	outcome, reason := level.Prove(rec.Switch.Expectation, f, a.ReadStamp())
	switch outcome {
	case level.Switched:
		if err := rec.Advance(record.CauseArrived); err != nil {
			return err
		}
		delete(rec.Failed, rec.Switch.Target)
		// A switch back or a resume ends a switch whose result is recorded already, and that result stays; but a resume
		// replaces the result of an earlier attempt at the same root.
		retried := rec.Switch.Verb == record.VerbResume && rec.Last != nil && rec.Last.Target == rec.Switch.Target
		if rec.Last == nil || retried || rec.Switch.Verb != record.VerbBack && rec.Switch.Verb != record.VerbResume {
			rec.Last = &record.Result{Outcome: outcome, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
		}
		return errors.Join(a.WriteSwitch(rec), a.Machine.Systemd.ForgetGone(ctx))
	case level.Pending:
		return a.withdrawPending(ctx, f, rec)
	case level.Landed:
		return a.recordLanding(ctx, rec, reason)
	}
	if f.BootID == rec.Switch.BootID {
		if err := a.CheckNotUnderWay(ctx, rec); err != nil { // it is being armed right now
			return err
		}
		restoreState(a.Host, rec.Switch.Kept)
		a.Keep.Release(ctx, rec.Switch.Units)
	}
	return a.recordGiveUp(rec, record.CauseMissed, outcome, reason)
}

// CheckNotUnderWay returns a [record.ErrBlocked] while systemd is shutting down for the switch.
func (a *Arrival) CheckNotUnderWay(ctx context.Context, rec *record.Record) error {
	underWay, err := a.Machine.Systemd.ShuttingDown(ctx)
	if err == nil && underWay {
		err = fmt.Errorf("%w: the switch to %s is under way", record.ErrBlocked, rec.Switch.Target)
	}
	return err
}

// withdrawPending withdraws a switch that was recorded and has not happened: the agent was killed before it requested
// the reboot. The error is a [record.ErrBlocked] when systemd is shutting down for it after all.
func (a *Arrival) withdrawPending(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := a.CheckNotUnderWay(ctx, rec); err != nil {
		return err
	}
	if rec.Switch.Verb == record.VerbBack { // taken back, it would leave the host in the root that did not become good
		return a.requestRollback(ctx, f, rec)
	}
	return a.Withdraw(ctx, rec)
}

// requestRollback requests a rollback that was recorded and never requested. It returns a [record.ErrBlocked] once that
// is under way, and an [ErrFullRebootFollows] when only a full reboot leads back.
func (a *Arrival) requestRollback(ctx context.Context, f facts.Facts, rec *record.Record) error {
	a.Log.Warn("a rollback that was recorded is requested now", zap.String("root", rec.Switch.Target))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	if rec.Switch.OnNewKernel() {
		return errors.Join(ErrFullRebootFollows, a.leaveKernel(ctx, rec))
	}
	if err := a.requestReboot(ctx, rec.Switch); err != nil {
		return a.fullRebootInstead(ctx, rec, err)
	}
	a.reportSwitching(rec, f)
	return fmt.Errorf("%w: the rollback to %s is under way", record.ErrBlocked, rec.Switch.Target)
}

// recordLanding records that the full reboot of a switch landed on the host root. The soft reboot from there into the
// target is a switch of its own.
func (a *Arrival) recordLanding(ctx context.Context, rec *record.Record, reason string) error {
	if err := a.CheckNotUnderWay(ctx, rec); err != nil {
		return err
	}
	command := "updatectl apply"
	if rec.Switch.Named {
		command = "updatectl switch " + rec.Switch.Target
	}
	a.Log.Warn(reason + "; `" + command + "` switches to it")
	if err := rec.Advance(record.CauseLanded); err != nil {
		return err
	}
	rec.ForgiveAttempt(rec.Switch.Target) // the soft reboot into the target counts as the attempt
	rec.Last = &record.Result{Outcome: level.Landed, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
	if err := a.Records.WriteOutcome(rec); err != nil {
		return err
	}
	a.Records.AppendEvent(rec.Switch.Event(record.EventLanded, reason))
	return nil
}

// recordGiveUp records a switch that failed, and returns an ErrSwitch. It returns nil for a switch back that a full
// reboot interrupted.
func (a *Arrival) recordGiveUp(rec *record.Record, c record.Cause, outcome level.Outcome, reason string) error {
	now := a.Now().UTC()
	if err := rec.GiveUp(c, outcome, reason, now); err != nil {
		return err
	}
	if err := a.Records.WriteOutcome(rec); err != nil {
		return err
	}
	a.Records.AppendEvent(rec.Switch.Event(record.EventFailed, reason))
	a.Log.Info("the switch failed", event.SwitchFailed.Field(), zap.String("root", rec.Switch.Target),
		zap.String("version", rec.Switch.Version), zap.String("verb", rec.Switch.Verb), zap.String("reason", reason))
	if bad, isBad := rec.Bad[rec.Switch.Target]; isBad && bad.At.Equal(now) && bad.Reason != reason {
		a.Records.AppendEvent(rec.Switch.Event(record.EventBad, bad.Reason))
	}
	if rec.Switch.Verb == record.VerbBack && outcome == level.Rebooted {
		return nil // the full reboot has left the bad root
	}
	return fmt.Errorf("%w: %s", ErrSwitch, reason)
}
