package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/guard"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// Confirmed is the answer of confirm.
type Confirmed struct {
	Root string `json:"root"`
	// Good tells that the running root counts as good.
	Good bool `json:"good"`
	// Last is how the last switch ended, nil when there was none.
	Last *record.Result `json:"last,omitempty"`
	// Health is the report about the root, when this run of confirm made one.
	Health *HealthReport `json:"health,omitempty"`
}

// Confirm runs in every root once it is up. After a switch it proves that the host is where it was sent, and marks the
// root good when it is healthy; when it is not, it goes back. A switch that ended elsewhere is an error, told once; one
// that ended in going back is an error until the next switch.
func (a *Agent) Confirm(ctx context.Context) (Confirmed, error) {
	if err := a.requireRunning(); err != nil {
		return Confirmed{}, err
	}
	unlock, err := a.Lock(ctx, "confirm", true)
	if err != nil {
		return Confirmed{}, err
	}
	defer unlock()
	const tries, pause = 10, 2 * time.Second // as long as systemd may take to be executed anew on a slow machine
	for range tries - 1 {
		done, err := a.confirm(ctx)
		if err == nil || !a.passing(err) {
			return done, err
		}
		a.Log.Warn("cannot confirm; it is tried again", zap.Error(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return done, err
		}
	}
	return a.confirm(ctx)
}

// passing tells whether an error that leaves a root unjudged may be one of the moment, such as a systemd that does not
// answer. What confirm finds out about roots and files is none.
func (a *Agent) passing(err error) bool {
	if rec, rerr := a.Records.Read(); rerr != nil || !rec.Moving() {
		return false
	}
	for _, known := range []error{record.ErrUnhealthy, transition.ErrSwitch, record.ErrBlocked, context.Canceled} {
		if errors.Is(err, known) {
			return false
		}
	}
	return !transition.IsFileError(err)
}

func (a *Agent) confirm(ctx context.Context) (Confirmed, error) {
	facts, rec, err := a.Look(ctx)
	if err != nil {
		return Confirmed{}, err
	}
	err = a.Transition.DisarmLeftover(ctx, facts, rec)
	if errors.Is(err, transition.ErrForeign) && rec.Moving() { // the guard would go back from a root that nobody has judged
		a.Log.Warn("the root is judged all the same", zap.Error(err))
		err = nil
	}
	if err == nil {
		err = a.Transition.BackOrFullReboot(ctx, facts, rec, a.Transition.Reconcile(ctx, facts, rec))
	}
	a.NotePast(facts.Root)
	done := Confirmed{Root: facts.Root}
	if err == nil && rec.Phase == record.PhaseTrying {
		err = a.decideTrying(ctx, facts, rec)
		done.Health = a.lastReport()
	}
	a.complain(ctx, facts, rec, err)
	done.Good, done.Last = err == nil && rec.LastGood() == facts.Root, rec.Last
	if err == nil && rec.Last != nil && rec.Last.Outcome == level.Unhealthy {
		err = rec.Last.Err()
	}
	return done, err
}

// complain leaves it to the guard to go back from a root in which confirm cannot do its work: where the record cannot be
// written, no root becomes good. Anything else may come right: systemd starts confirm again, and the deadline is not over.
func (a *Agent) complain(ctx context.Context, f facts.Facts, rec *record.Record, err error) {
	if ctx.Err() != nil || !rec.Moving() || rec.Switch.Target != f.Root || errors.Is(err, record.ErrUnhealthy) || !transition.IsFileError(err) {
		return
	}
	a.Transition.LeaveVerdict(f.Root, record.Departure{Reason: "updatectl confirm failed: " + err.Error()})
}

// decideTrying ends the time of trial of a root: it is good, or the host goes back.
func (a *Agent) decideTrying(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if a.fault != nil && rec.Switch.Verb == record.VerbApply && rec.WayBack() != "" {
		return a.Transition.GoBack(ctx, f, rec, "no other image could be applied from it: "+a.fault.Error())
	}
	report, err := a.judge(ctx, f, rec)
	switch {
	case err != nil:
		return err
	case report.Healthy():
		return a.good(ctx, f, rec)
	case rec.WayBack() != "":
		return a.Transition.GoBack(ctx, f, rec, report.Reason())
	}
	return a.Transition.Strand(ctx, rec, report)
}

// settle marks a root that is being tried good, if it has come up and passes the health gate. Going back is left to
// confirm.
func (a *Agent) settle(ctx context.Context, f facts.Facts, rec *record.Record) error {
	report, err := a.judge(ctx, f, rec)
	if err != nil {
		return err
	}
	if !report.Healthy() {
		return fmt.Errorf("%w: %s: %s", record.ErrUnhealthy, f.Root, report.Reason())
	}
	return a.good(ctx, f, rec)
}

// timeLeft is how long the root that runs still has to become good: [health] deadline, counted from when it was armed.
func (a *Agent) timeLeft() time.Duration {
	left := time.Duration(a.Config.Health.Deadline)
	if stamp := a.Transition.ReadStamp(); stamp != nil && stamp.At > 0 {
		left -= a.Machine.Kernel.SinceBoot() - stamp.At
	}
	// What a root that came up late gets all the same, before the guard acts: it is judged, and not condemned unseen.
	const look = 2 * time.Second
	return max(left, min(look+time.Duration(a.Config.Health.Settle), guard.Margin-look))
}

// good marks the root that runs good.
func (a *Agent) good(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := a.Transition.CheckGuardStays(ctx); err != nil {
		return err
	}
	before, err := rec.Clone()
	if err != nil {
		return err
	}
	// Before it is recorded: of a good root it would come back.
	if err := a.Roots.RetireEtc(f.Root); err != nil {
		return err
	}
	if err := rec.Proved(f.Root); err != nil {
		return err
	}
	if a.fault == nil {
		rec.State = &a.Config.State
	}
	if err := a.Transition.WriteSwitch(rec); err != nil {
		rec.Phase = record.PhaseTrying // as it is on the disk: the guard has to know
		return err
	}
	if err := a.Transition.CheckGuardStays(ctx); err != nil { // it began meanwhile; the root that it goes to takes over what it did
		*rec = *before
		return errors.Join(err, a.Records.Write(rec))
	}
	a.Roots.RestoreEtcs(f)
	a.Records.Tell(rec.Switch.Event(record.EventGood, "").WithKernelOf(f))
	a.Log.Info("the root is good", zap.String("root", f.Root))
	if a.proved != nil {
		a.proved(ctx, f, rec)
	}
	return nil
}
