// Package trial answers whether the running root is good. It promises that a root becomes good only after the health
// gate passed, and that an unhealthy root is rolled back.
package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/guard"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// Trial judges the root that runs while it is being tried.
type Trial struct {
	*host.Host
	Roots      roots.Roots
	Transition transition.Arrival
	// ConfigFault is what is wrong with the configuration, nil when it is valid. With a fault, a root does not become
	// good after an apply: no other image could be applied from it.
	ConfigFault error
	// Proving is called before a root is recorded as good, Proved after; they may be nil.
	Proving func(facts.Facts, *record.Record)
	Proved  func(context.Context, facts.Facts, *record.Record)
}

// Confirmed is the answer of confirm.
type Confirmed struct {
	Root string `json:"root"`
	// Good is whether the running root is good.
	Good bool `json:"good"`
	// Volatile is whether it runs on a throw-away copy of the state, and Healthy whether such a root is healthy.
	Volatile bool `json:"volatile,omitempty"`
	Healthy  bool `json:"healthy,omitempty"`
	// Last is how the last switch ended, nil when there was none.
	Last *record.Result `json:"last,omitempty"`
	// Health is the report about the root, nil when this run of confirm did not judge it.
	Health *Report `json:"health,omitempty"`
}

// IsTransient reports whether an error of Confirm may pass, so that it is worth trying again: systemd may not answer
// for a moment. What confirm finds out about roots and files does not pass.
func (t *Trial) IsTransient(err error) bool {
	if rec, rerr := t.Records.Read(); rerr != nil || !rec.Moving() {
		return false
	}
	for _, final := range []error{record.ErrUnhealthy, transition.ErrSwitch, record.ErrBlocked, context.Canceled} {
		if errors.Is(err, final) {
			return false
		}
	}
	return !transition.IsFileError(err)
}

// Confirm reconciles the record with the running root, judges the root while it is being tried, and marks it good or
// rolls it back. The error is a [transition.ErrSwitch] or a [record.ErrUnhealthy].
func (t *Trial) Confirm(ctx context.Context) (Confirmed, error) {
	facts, rec, err := t.Look(ctx)
	if err != nil {
		return Confirmed{}, err
	}
	if t.IsLost(facts) {
		return t.adopt(ctx, facts, rec)
	}
	err = t.Transition.DisarmLeftover(ctx, facts, rec)
	if errors.Is(err, transition.ErrForeign) && rec.Moving() { // otherwise the guard would roll back an unjudged root
		t.Log.Warn("judging the running root anyway", zap.Error(err))
		err = nil
	}
	if err == nil {
		err = t.Transition.FullRebootIfNotBack(ctx, facts, rec, t.Transition.Reconcile(ctx, facts, rec))
	}
	t.NotePast(facts.Root)
	done := Confirmed{Root: facts.Root}
	if err == nil && rec.Phase == record.PhaseTrying {
		err = t.decideTrying(ctx, facts, rec)
		done.Health = t.LastReport()
	}
	t.leaveToGuard(ctx, facts, rec, err)
	done.Good, done.Last = err == nil && rec.LastGood() == facts.Root && !facts.Volatile, rec.Last
	done.Volatile, done.Healthy = facts.Volatile, err == nil && facts.Volatile && rec.Healthy == facts.Root
	if err == nil && rec.Last != nil && rec.Last.Outcome == level.Unhealthy {
		err = rec.Last.Err()
	}
	return done, err
}

// leaveToGuard writes a verdict, by which the guard rolls back, when confirm cannot read or write its files: no root
// becomes good without a record. Other errors may pass: systemd starts confirm again until the deadline.
func (t *Trial) leaveToGuard(ctx context.Context, f facts.Facts, rec *record.Record, err error) {
	if ctx.Err() != nil || !rec.Moving() || rec.Switch.Target != f.Root || errors.Is(err, record.ErrUnhealthy) ||
		!transition.IsFileError(err) {
		return
	}
	reason, to := "updatectl confirm failed: "+err.Error(), rec.RollbackTarget()
	if t.Transition.LeaveVerdict(f.Root, record.Departure{Reason: reason}) && to != "" { // otherwise the guard says so
		t.Log.Info("the root is unhealthy; the guard rolls back", event.Unhealthy.Field(), zap.String("root", f.Root),
			zap.String("version", rec.Switch.Version), zap.String("to", to), zap.String("reason", reason))
	}
}

// decideTrying ends the trial of the running root: the root is marked good, rolled back, or kept because there is no
// better one.
func (t *Trial) decideTrying(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if t.ConfigFault != nil && rec.Switch.Verb == record.VerbApply && rec.RollbackTarget() != "" {
		return t.Transition.RollBack(ctx, f, rec, "no other image could be applied from it: "+t.ConfigFault.Error())
	}
	report, err := t.judge(ctx, f, rec)
	switch {
	case err != nil:
		return err
	case report.Healthy():
		return t.markGood(ctx, f, rec, report)
	case isWanted(rec, report):
		return t.keepWanted(ctx, f, rec, report)
	case rec.RollbackTarget() != "":
		return t.Transition.RollBack(ctx, f, rec, report.Reason())
	}
	return t.Transition.Strand(ctx, rec, report)
}

// mayStay reports whether the host may stay in the root that is being tried although it is unhealthy: somebody rolled
// back to it, or there is no better one.
func mayStay(rec *record.Record) bool {
	return rec.Switch.Verb == record.VerbRollback || rec.RollbackTarget() == ""
}

// isWanted reports whether an unhealthy root is kept because somebody rolled back to it: who wants to be there knows
// more than the gate does. Only a host that is cut off leaves it, since nobody could.
func isWanted(rec *record.Record, report health.Report) bool {
	return rec.Switch.Verb == record.VerbRollback && !report.CutOff()
}

// keepWanted marks an unhealthy root good that somebody rolled back to, and says in the record what is wrong with it.
func (t *Trial) keepWanted(ctx context.Context, f facts.Facts, rec *record.Record, report health.Report) error {
	t.Log.Warn("the root is unhealthy; it is kept, because somebody rolled back to it", event.Unhealthy.Field(),
		zap.String("root", f.Root), zap.String("version", rec.Switch.Version), zap.String("reason", report.Reason()))
	if rec.Last != nil && rec.Last.Target == f.Root {
		rec.Last.Reason = "it is kept, because somebody rolled back to it, although it is unhealthy: " + report.Reason()
	}
	return t.markGood(ctx, f, rec, report)
}

// ConfirmIfHealthy marks the root that is being tried good when it passes the health gate. Otherwise it returns a
// [record.ErrUnhealthy], and leaves the rollback to confirm.
func (t *Trial) ConfirmIfHealthy(ctx context.Context, f facts.Facts, rec *record.Record) error {
	report, err := t.judge(ctx, f, rec)
	if err != nil {
		return err
	}
	switch {
	case report.Healthy():
		return t.markGood(ctx, f, rec, report)
	case isWanted(rec, report):
		return t.keepWanted(ctx, f, rec, report)
	}
	return fmt.Errorf("%w: %s: %s", record.ErrUnhealthy, f.Root, report.Reason())
}

// timeLeft returns how long the running root still has to become good: [health] deadline, counted from when it was
// armed.
func (t *Trial) timeLeft() time.Duration {
	left := time.Duration(t.Config.Health.Deadline)
	if stamp := t.Transition.ReadStamp(); stamp != nil && stamp.At > 0 {
		left -= t.Machine.Kernel.SinceBoot() - stamp.At
	}
	// A root that came up late is still judged: it gets this time, which ends before the guard acts.
	const least = 2 * time.Second
	return max(left, min(least+time.Duration(t.Config.Health.Settle), guard.Margin-least))
}

// markGood marks the running root good. The error is a [transition.ErrGuardLeaves] when the guard rolls back
// meanwhile.
func (t *Trial) markGood(ctx context.Context, f facts.Facts, rec *record.Record, report health.Report) error {
	if err := t.Transition.CheckGuardStays(ctx); err != nil {
		return err
	}
	before, err := rec.Clone()
	if err != nil {
		return err
	}
	if !rec.Switch.Volatile {
		// Retire the old /etc before the root is recorded as good; otherwise the cleanup would restore it.
		if err := t.Roots.RetireEtc(f.Root); err != nil {
			return err
		}
	}
	if t.Proving != nil && !rec.Switch.Volatile {
		t.Proving(f, rec)
	}
	if err := rec.Proved(f.Root); err != nil {
		return err
	}
	if !rec.Switch.Volatile {
		rec.WhenGood = rec.WhenGood.With(f.Root, report.State, rec.Good)
		if t.ConfigFault == nil {
			rec.State = &t.Config.State
		}
	}
	if err := t.Transition.WriteSwitch(rec); err != nil {
		rec.Phase = record.PhaseTrying // as on the disk, so that leaveToGuard still writes a verdict
		return err
	}
	// If the guard has begun to roll back meanwhile, undo this: the root that it rolls back to takes over its note.
	if err := t.Transition.CheckGuardStays(ctx); err != nil {
		*rec = *before
		return errors.Join(err, t.Records.Write(rec))
	}
	t.Roots.RestoreEtcs(f)
	if rec.Switch.Volatile {
		t.Records.AppendEvent(rec.Switch.Event(record.EventHealthy, "").WithKernelOf(f))
		t.Log.Info("the volatile root is healthy; the next switch drops it", zap.String("root", f.Root))
		return nil
	}
	t.Records.AppendEvent(rec.Switch.Event(record.EventGood, "").WithKernelOf(f))
	t.Log.Info("the root is good", arrived(rec.Switch.Verb).Field(), zap.String("root", f.Root),
		zap.String("version", rec.Switch.Version), zap.String("verb", rec.Switch.Verb))
	if t.Proved != nil {
		t.Proved(ctx, f, rec)
	}
	return nil
}

// arrived returns the event of a root that became good after a switch with this verb.
func arrived(verb string) event.Event {
	switch verb {
	case record.VerbBack, record.VerbRollback:
		return event.RolledBack
	case record.VerbResume:
		return event.Resumed
	}
	return event.Good
}

// EndConfirm stops the confirm that judges the running root, which may take as long as [health] deadline, and reports
// whether one was running.
func (t *Trial) EndConfirm(ctx context.Context) (bool, error) {
	rec, err := t.Records.Read()
	if err != nil || !rec.Moving() {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, transition.RequestTimeout)
	defer cancel()
	return t.Machine.Systemd.EndConfirm(ctx)
}

// Condemned reports whether there is a verdict against the running root. A verdict about an earlier root does not
// count.
func (t *Trial) Condemned() bool {
	root, err := t.Machine.MountedRoot()
	return err == nil && t.Transition.ReadVerdict(root).Reason != ""
}
