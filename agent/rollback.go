package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Rollback goes back to a good root: the given one, or with "" the one before the running root. The root that is left is
// not taken again by an unattended apply. A root that is being judged is left without waiting for the verdict.
func (a *Agent) Rollback(ctx context.Context, to string, wait bool) (Applied, error) {
	if err := a.RequireRunning(); err != nil {
		return Applied{}, err
	}
	if to != "" && to != switcher.HostRoot { // before anything is ended for it
		root, err := a.Roots.Find(to)
		if err != nil {
			return Applied{}, err
		}
		to = root.ID
	}
	var done Applied
	ended, err := a.Trial.End(ctx)
	if err == nil {
		done, err = a.rollback(ctx, to, wait)
	}
	if ended && !done.Switching && !a.Trial.Condemned() { // with a verdict, the guard goes back
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.AskTime)
		defer cancel()
		if err := a.Machine.Systemd.BeginConfirm(ctx); err != nil { // the guard goes back at the deadline
			a.Log.Warn("the root is not judged any more", zap.Error(err))
		}
	}
	return done, err
}

func (a *Agent) rollback(ctx context.Context, to string, wait bool) (done Applied, err error) {
	s, err := a.begin(ctx, record.VerbRollback, wait)
	defer s.close()
	if err != nil && !errors.Is(err, transition.ErrSwitch) { // a failed switch is no reason to stay
		return Applied{}, err
	}
	watched := false
	if s.rec.EndsTrial(s.facts.Root) {
		if watched, err = a.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit); err != nil {
			return Applied{}, err
		}
	}
	d := decideRollback(s.facts.Root, s.rec, to, watched)
	if d.to != "" {
		done = Applied{Root: d.to, From: s.facts.Root}
	}
	switch d.do {
	case rollbackNothing:
		return done, d.err
	case rollbackTrial:
		done.Version = a.Roots.VersionOf(d.to, s.rec)
		err = s.leaveTrial(ctx, d.to, to != "")
	case rollbackSwitch:
		done.Version, err = s.rollbackTo(ctx, d.to)
	}
	done.Switching = err == nil
	return done, err
}

// rollbackTo asks for the switch to a good root, and returns its version.
func (s *session) rollbackTo(ctx context.Context, to string) (string, error) {
	version, err := s.Roots.MakeReady(to, s.facts, s.rec)
	if err != nil {
		return "", err
	}
	sw := record.Switch{Verb: record.VerbRollback, Version: cmp.Or(s.rec.Accepted[to].Version, version)}
	sw.Before = s.Trial.Observe(ctx, s.facts, sw.Verb)
	left := &record.Bad{Reason: record.RolledBack, RolledBack: true}
	return sw.Version, s.Transition.Start(ctx, s.rec, s.facts, sw, to, left)
}

// leaveTrial leaves a root that is being tried as if it were unhealthy: the guard that watched the way there watches the
// way back, no inhibitor lock is in the way, and what does not stop is killed. So it goes only where the guard is prepared
// to go.
func (s *session) leaveTrial(ctx context.Context, to string, named bool) error {
	if err := s.Transition.CheckNotUnderWay(ctx, s.rec); err != nil { // a power-off, for example
		return err
	}
	if back := s.rec.WayBack(); to != back {
		return fmt.Errorf("%w: until it is confirmed, the host can only go back to %s, and from there to %s", ErrTrying, back, to)
	}
	return s.Transition.Leave(ctx, s.facts, s.rec, record.Departure{Reason: record.RolledBack, RolledBack: true}, named)
}

// rollbackAct is what rollback does next.
type rollbackAct string

const (
	rollbackNothing rollbackAct = "nothing" // the host runs there, or the error says why it cannot
	rollbackTrial   rollbackAct = "trial"   // leave a root that is being tried, watched by its guard
	rollbackSwitch  rollbackAct = "switch"  // an ordinary switch to a good root
)

// rollbackDecision is what rollback does next, and to which root.
type rollbackDecision struct {
	do  rollbackAct
	to  string
	err error
}

// decideRollback decides where a rollback from the running root leads; to is the wish, "" for the root before. Watched
// reports whether a guard runs: only with one is a root that is being tried left like an unhealthy one.
func decideRollback(running string, rec *record.Record, to string, watched bool) rollbackDecision {
	trial := rec.EndsTrial(running) && watched
	switch {
	case to == "" && trial:
		to = rec.WayBack()
	case to == "":
		to = rec.RollbackTarget(running)
	}
	bad, isBad := rec.Bad[to]
	switch {
	case to == "":
		return rollbackDecision{do: rollbackNothing, err: fmt.Errorf("%w: there is no root before %s", roots.ErrNoRoot, running)}
	case to == running:
		return rollbackDecision{do: rollbackNothing, to: to}
	case isBad && !bad.RolledBack && !slices.Contains(rec.Good, to):
		return rollbackDecision{do: rollbackNothing, to: to, err: bad.Err()}
	case trial:
		return rollbackDecision{do: rollbackTrial, to: to}
	}
	return rollbackDecision{do: rollbackSwitch, to: to}
}
