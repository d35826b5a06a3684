package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/decide"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Rollback switches to a good root: the given one, or with "" the one before the running root. An unattended apply
// does not switch to the left root again. A root whose health is being checked is left without waiting for the result.
// The error is a [roots.ErrNoRoot] when there is no such root.
func (a *Agent) Rollback(ctx context.Context, to string, wait bool) (Applied, error) {
	if err := a.RequireRunning(); err != nil {
		return Applied{}, err
	}
	if to != "" && to != switcher.HostRoot { // check the name before confirm is stopped
		root, err := a.Roots.Find(to)
		if err != nil {
			return Applied{}, err
		}
		to = root.ID
	}
	var done Applied
	ended, err := a.Trial.EndConfirm(ctx)
	if err == nil {
		done, err = a.rollback(ctx, to, wait)
	}
	if ended && !done.Switching && !a.Trial.Condemned() { // an unhealthy root is rolled back by the guard
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
		defer cancel()
		if err := a.Machine.Systemd.BeginConfirm(ctx); err != nil {
			a.Log.Warn("cannot restart updatectl-confirm.service; the guard rolls back at the deadline", zap.Error(err))
		}
	}
	return done, err
}

// rollback is Rollback once confirm has been stopped.
func (a *Agent) rollback(ctx context.Context, to string, wait bool) (done Applied, err error) {
	s, err := beginRollback(ctx, a, wait)
	defer s.close()
	if s == nil { // an earlier switch that failed does not prevent a rollback
		return Applied{}, err
	}
	watched := false
	if s.rec.EndsTrial(s.facts.Root) {
		if watched, err = a.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit); err != nil {
			return Applied{}, err
		}
	}
	d := decide.Rollback(s.facts.Root, s.rec, to, watched)
	if d.To != "" {
		done = Applied{Root: d.To, From: s.facts.Root}
	}
	if d.Do != decide.Nothing {
		done.Warnings = recheck.OnReturn(&s.Roots, d.To, s.facts)
	}
	switch d.Do {
	case decide.Nothing:
		return done, d.Err
	case decide.LeaveTrial:
		done.Version = a.Roots.VersionOf(d.To, s.rec)
		err = s.leaveTrial(ctx, d.To, to != "")
	case decide.Switch:
		done.Version, err = s.rollbackTo(ctx, d.To)
	}
	done.Switching = err == nil
	if done.Drops = done.Switching && s.facts.Volatile; done.Switching && !done.Drops {
		done.LeftInEtc = roots.ChangedInEtc(&s.Roots, s.facts)
	}
	return done, err
}

// endTime is how long a command that is ended may hold the lock.
const endTime = 30 * time.Second

// beginRollback is [Agent.begin] for a rollback. It does not wait for a command that fetches, but ends it: whoever
// rolls back has a reason.
func beginRollback(ctx context.Context, a *Agent, wait bool) (*session, error) {
	s, busy := a.begin(ctx, record.VerbRollback, false)
	if !errors.Is(busy, record.ErrBusy) {
		return s, busy
	}
	ended := a.EndFetch(busy)
	if !wait && !ended {
		return nil, busy
	}
	if !wait {
		limited, cancel := context.WithTimeoutCause(ctx, endTime, busy)
		defer cancel()
		ctx = limited
	}
	s, err := a.begin(ctx, record.VerbRollback, true)
	if errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) == busy {
		err = busy
	}
	return s, err
}

// rollbackTo requests the switch to a good root, and returns its version.
func (s *session) rollbackTo(ctx context.Context, to string) (string, error) {
	version, err := s.Roots.MakeReady(to, s.facts, s.rec)
	if err != nil {
		return "", err
	}
	sw := record.Switch{Verb: record.VerbRollback, Version: cmp.Or(s.rec.Accepted[to].Version, version)}
	sw.Before = s.Trial.Observe(ctx, s.facts, sw.Verb)
	return sw.Version, s.Transition.Start(ctx, s.rec, s.facts, sw, to, volatile.Left(s.facts))
}

// leaveTrial leaves a root that is being tried as if it were unhealthy: the guard of the first switch also watches
// this one, inhibitor locks are ignored, and units that do not stop are killed. It can only go to the root that the
// guard has prepared; any other is an ErrTrying. Named is whether the operator named the root.
func (s *session) leaveTrial(ctx context.Context, to string, named bool) error {
	if err := s.Transition.CheckNotUnderWay(ctx, s.rec); err != nil { // such as a power-off
		return err
	}
	if back := s.rec.RollbackTarget(); to != back {
		return fmt.Errorf("%w: until then, only a rollback to %s is possible; roll back to %s from there",
			ErrTrying, back, to)
	}
	return s.Transition.Leave(ctx, s.facts, s.rec, record.Departure{Reason: record.RolledBack, RolledBack: true}, named)
}
