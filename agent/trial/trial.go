// Package trial answers whether the root that runs is good. It promises that a root becomes good only after the health gate
// passed, and that an unhealthy one is left for the root before it.
package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/guard"
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
	// Fault is what is wrong with the configuration, nil when nothing is. A root with one does not become good by an
	// apply: no other image could be applied from it.
	Fault error
	// Proved is called once a root has become good.
	Proved func(context.Context, facts.Facts, *record.Record)
}

// Confirmed is the answer of confirm.
type Confirmed struct {
	Root string `json:"root"`
	// Good tells that the running root counts as good.
	Good bool `json:"good"`
	// Last is how the last switch ended, nil when there was none.
	Last *record.Result `json:"last,omitempty"`
	// Health is the report about the root, when this run of confirm made one.
	Health *Report `json:"health,omitempty"`
}

// MayPass tells whether an error that leaves a root unjudged may be one of the moment, such as a systemd that does not
// answer. What confirm finds out about roots and files is none.
func (t *Trial) MayPass(err error) bool {
	if rec, rerr := t.Records.Read(); rerr != nil || !rec.Moving() {
		return false
	}
	for _, known := range []error{record.ErrUnhealthy, transition.ErrSwitch, record.ErrBlocked, context.Canceled} {
		if errors.Is(err, known) {
			return false
		}
	}
	return !transition.IsFileError(err)
}

func (t *Trial) Confirm(ctx context.Context) (Confirmed, error) {
	facts, rec, err := t.Look(ctx)
	if err != nil {
		return Confirmed{}, err
	}
	err = t.Transition.DisarmLeftover(ctx, facts, rec)
	if errors.Is(err, transition.ErrForeign) && rec.Moving() { // the guard would go back from a root that nobody has judged
		t.Log.Warn("the root is judged all the same", zap.Error(err))
		err = nil
	}
	if err == nil {
		err = t.Transition.BackOrFullReboot(ctx, facts, rec, t.Transition.Reconcile(ctx, facts, rec))
	}
	t.NotePast(facts.Root)
	done := Confirmed{Root: facts.Root}
	if err == nil && rec.Phase == record.PhaseTrying {
		err = t.decideTrying(ctx, facts, rec)
		done.Health = t.Last()
	}
	t.complain(ctx, facts, rec, err)
	done.Good, done.Last = err == nil && rec.LastGood() == facts.Root, rec.Last
	if err == nil && rec.Last != nil && rec.Last.Outcome == level.Unhealthy {
		err = rec.Last.Err()
	}
	return done, err
}

// complain leaves it to the guard to go back from a root in which confirm cannot do its work: where the record cannot be
// written, no root becomes good. Anything else may come right: systemd starts confirm again, and the deadline is not over.
func (t *Trial) complain(ctx context.Context, f facts.Facts, rec *record.Record, err error) {
	if ctx.Err() != nil || !rec.Moving() || rec.Switch.Target != f.Root || errors.Is(err, record.ErrUnhealthy) || !transition.IsFileError(err) {
		return
	}
	t.Transition.LeaveVerdict(f.Root, record.Departure{Reason: "updatectl confirm failed: " + err.Error()})
}

// decideTrying ends the time of trial of a root: it is good, or the host goes back.
func (t *Trial) decideTrying(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if t.Fault != nil && rec.Switch.Verb == record.VerbApply && rec.WayBack() != "" {
		return t.Transition.GoBack(ctx, f, rec, "no other image could be applied from it: "+t.Fault.Error())
	}
	report, err := t.judge(ctx, f, rec)
	switch {
	case err != nil:
		return err
	case report.Healthy():
		return t.good(ctx, f, rec)
	case rec.WayBack() != "":
		return t.Transition.GoBack(ctx, f, rec, report.Reason())
	}
	return t.Transition.Strand(ctx, rec, report)
}

// Settle marks a root that is being tried good, if it has come up and passes the health gate. Going back is left to
// confirm.
func (t *Trial) Settle(ctx context.Context, f facts.Facts, rec *record.Record) error {
	report, err := t.judge(ctx, f, rec)
	if err != nil {
		return err
	}
	if !report.Healthy() {
		return fmt.Errorf("%w: %s: %s", record.ErrUnhealthy, f.Root, report.Reason())
	}
	return t.good(ctx, f, rec)
}

// timeLeft is how long the root that runs still has to become good: [health] deadline, counted from when it was armed.
func (t *Trial) timeLeft() time.Duration {
	left := time.Duration(t.Config.Health.Deadline)
	if stamp := t.Transition.ReadStamp(); stamp != nil && stamp.At > 0 {
		left -= t.Machine.Kernel.SinceBoot() - stamp.At
	}
	// What a root that came up late gets all the same, before the guard acts: it is judged, and not condemned unseen.
	const look = 2 * time.Second
	return max(left, min(look+time.Duration(t.Config.Health.Settle), guard.Margin-look))
}

// good marks the root that runs good.
func (t *Trial) good(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := t.Transition.CheckGuardStays(ctx); err != nil {
		return err
	}
	before, err := rec.Clone()
	if err != nil {
		return err
	}
	// Before it is recorded: of a good root it would come back.
	if err := t.Roots.RetireEtc(f.Root); err != nil {
		return err
	}
	if err := rec.Proved(f.Root); err != nil {
		return err
	}
	if t.Fault == nil {
		rec.State = &t.Config.State
	}
	if err := t.Transition.WriteSwitch(rec); err != nil {
		rec.Phase = record.PhaseTrying // as it is on the disk: the guard has to know
		return err
	}
	if err := t.Transition.CheckGuardStays(ctx); err != nil { // it began meanwhile; the root that it goes to takes over what it did
		*rec = *before
		return errors.Join(err, t.Records.Write(rec))
	}
	t.Roots.RestoreEtcs(f)
	t.Records.Tell(rec.Switch.Event(record.EventGood, "").WithKernelOf(f))
	t.Log.Info("the root is good", zap.String("root", f.Root))
	if t.Proved != nil {
		t.Proved(ctx, f, rec)
	}
	return nil
}

// End ends the confirm that judges the running root, which may take as long as [health] deadline, and reports whether
// there was one.
func (t *Trial) End(ctx context.Context) (bool, error) {
	rec, err := t.Records.Read()
	if err != nil || !rec.Moving() {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, transition.AskTime)
	defer cancel()
	return t.Machine.Systemd.EndConfirm(ctx)
}

// Condemned reports whether the running root was found unhealthy. A verdict about a root before it does not count.
func (t *Trial) Condemned() bool {
	root, err := t.Machine.MountedRoot()
	return err == nil && t.Transition.ReadVerdict(root).Reason != ""
}
