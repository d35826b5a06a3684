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
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Rollback goes back to a good root: the given one, or with "" the one before the running root. The root that is left
// is not taken again by an unattended apply. A root that is being judged is left without waiting for the verdict.
func (a *Agent) Rollback(ctx context.Context, to string, wait bool) (Applied, error) {
	if err := a.requireLive(); err != nil {
		return Applied{}, err
	}
	if err := a.exists(to); err != nil { // before anything is ended for it
		return Applied{}, err
	}
	var done Applied
	ended, err := a.endConfirm(ctx)
	if err == nil {
		done, err = a.rollback(ctx, to, wait)
	}
	if ended && !done.Switching && !a.condemned() { // with a verdict, the guard goes
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.AskTime)
		defer cancel()
		if err := a.Machine.PID1.BeginConfirm(ctx); err != nil { // it was going back itself; else the guard will
			a.Log.Warn("the root is not judged any more", zap.Error(err))
		}
	}
	return done, err
}

// condemned tells whether somebody wants to leave the root that runs. What was said of a root before it counts no more.
func (a *Agent) condemned() bool {
	root, err := facts.MountedRoot()
	return err == nil && transition.ReadVerdict(a.Path(transition.VerdictFile), root) != ""
}

// exists is an error when no root has this name, or more than one; "" stands for the one before.
func (a *Agent) exists(root string) error {
	if root == "" || root == switcher.HostRoot {
		return nil
	}
	st, err := a.Roots.OpenStore()
	if err == nil {
		_, err = roots.FindRoot(st, root)
	}
	return err
}

// endConfirm ends the confirm that judges the running root, which may take as long as [health] deadline, and tells whether
// there was one.
func (a *Agent) endConfirm(ctx context.Context) (bool, error) {
	rec, err := a.Records.Read()
	if err != nil || !rec.Moving() {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, transition.AskTime)
	defer cancel()
	return a.Machine.PID1.EndConfirm(ctx)
}

func (a *Agent) rollback(ctx context.Context, to string, wait bool) (Applied, error) {
	unlock, err := a.Lock(ctx, record.VerbRollback, wait)
	if err != nil {
		return Applied{}, err
	}
	defer unlock()
	st, facts, rec, err := a.begin(ctx)
	if err != nil && !errors.Is(err, transition.ErrSwitch) { // a failed switch is no reason to stay
		return Applied{}, err
	}
	named := to != ""
	trial := rec.EndsTrial(facts.Root)
	if trial { // it goes only as well as it is watched
		if trial, err = a.Machine.PID1.UnitActive(ctx, pid1.GuardUnit); err != nil {
			return Applied{}, err
		}
	}
	switch {
	case to == "" && trial:
		to = rec.WayBack()
	case to == "":
		to = rec.RollbackTarget(facts.Root)
	}
	if to == "" {
		return Applied{}, fmt.Errorf("%w: there is no root before %s", roots.ErrNoRoot, facts.Root)
	}
	if to != switcher.HostRoot {
		root, err := roots.FindRoot(st, to)
		if err != nil {
			return Applied{}, err
		}
		to = root.ID
	}
	done := Applied{Root: to, From: facts.Root}
	if to == facts.Root {
		return done, nil
	}
	if bad, isBad := rec.Bad[to]; isBad && bad.Reason != record.RolledBack && !slices.Contains(rec.Good, to) {
		return done, bad.Err()
	}
	if trial {
		done.Version = a.Roots.VersionOf(to, rec)
		err := a.abandon(ctx, facts, rec, to, named)
		done.Switching = err == nil
		return done, err
	}
	s := record.Switch{Verb: record.VerbRollback}
	if s.Version, err = a.Roots.MakeReady(st, to, facts, rec); err != nil {
		return done, err
	}
	s.Version = cmp.Or(rec.Accepted[to].Version, s.Version)
	done.Version = s.Version
	if _, known := rec.Bad[facts.Root]; !known { // why it was given up before is worth more
		rec.Bad[facts.Root] = record.Bad{Reason: record.RolledBack, At: a.Now().UTC()}
	}
	if facts.Root == switcher.HostRoot {
		delete(rec.Bad, facts.Root)
	}
	s.Before = a.observe(ctx, facts, s.Verb)
	err = a.Transition.Start(ctx, rec, facts, s, to)
	done.Switching = err == nil
	return done, err
}

// abandon leaves a root that is being tried as if it were not healthy: the guard that watched the way there watches the way
// back, no inhibitor lock is in the way, and what does not stop is killed. So it goes only where the guard is prepared to go.
func (a *Agent) abandon(ctx context.Context, f facts.Facts, rec *record.Record, to string, named bool) error {
	if err := a.Transition.CheckNotUnderWay(ctx, rec); err != nil { // a power-off, for example
		return err
	}
	if back := rec.WayBack(); to != back {
		return fmt.Errorf("%w: until it is, the only way is back to %s, and from there to %s", ErrTrying, back, to)
	}
	return a.Transition.Leave(ctx, f, rec, "rolled back", record.RolledBack, named)
}
