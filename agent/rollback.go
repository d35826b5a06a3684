package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
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
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
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
	return err == nil && readVerdict(a.path(verdictFile), root) != ""
}

// exists is an error when no root has this name, or more than one; "" stands for the one before.
func (a *Agent) exists(root string) error {
	if root == "" || root == switcher.HostRoot {
		return nil
	}
	st, err := a.openStore()
	if err == nil {
		_, err = findRoot(st, root)
	}
	return err
}

// rolledBack is why a root is bad that the operator did not want.
const rolledBack = "rolled back from by the operator"

// endConfirm ends the confirm that judges the running root, which may take as long as [health] deadline, and tells whether
// there was one.
func (a *Agent) endConfirm(ctx context.Context) (bool, error) {
	rec, err := a.readRecord()
	if err != nil || !rec.moving() {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return a.Machine.PID1.EndConfirm(ctx)
}

func (a *Agent) rollback(ctx context.Context, to string, wait bool) (Applied, error) {
	unlock, err := a.lock(ctx, verbRollback, wait)
	if err != nil {
		return Applied{}, err
	}
	defer unlock()
	st, facts, rec, err := a.begin(ctx)
	if err != nil && !errors.Is(err, ErrSwitch) { // a failed switch is no reason to stay
		return Applied{}, err
	}
	named := to != ""
	trial := rec.abandons(facts.Root)
	if trial { // it goes only as well as it is watched
		if trial, err = a.Machine.PID1.UnitActive(ctx, pid1.GuardUnit); err != nil {
			return Applied{}, err
		}
	}
	switch {
	case to == "" && trial:
		to = rec.wayBack()
	case to == "":
		to = rec.back(facts.Root)
	}
	if to == "" {
		return Applied{}, fmt.Errorf("%w: there is no root before %s", ErrNoRoot, facts.Root)
	}
	if to != switcher.HostRoot {
		root, err := findRoot(st, to)
		if err != nil {
			return Applied{}, err
		}
		to = root.ID
	}
	done := Applied{Root: to, From: facts.Root}
	if to == facts.Root {
		return done, nil
	}
	if bad, isBad := rec.Bad[to]; isBad && bad.Reason != rolledBack && !slices.Contains(rec.Good, to) {
		return done, bad.givenUp()
	}
	if trial {
		done.Version = a.versionOf(to, rec)
		err := a.abandon(ctx, facts, rec, to, named)
		done.Switching = err == nil
		return done, err
	}
	s := Switch{Verb: verbRollback}
	if s.Version, err = a.ready(st, to, facts, rec); err != nil {
		return done, err
	}
	s.Version = cmp.Or(rec.Accepted[to].Version, s.Version)
	done.Version = s.Version
	if _, known := rec.Bad[facts.Root]; !known { // why it was given up before is worth more
		rec.Bad[facts.Root] = Bad{Reason: rolledBack, At: a.Now().UTC()}
	}
	if facts.Root == switcher.HostRoot {
		delete(rec.Bad, facts.Root)
	}
	s.Before = a.observe(ctx, facts, s.Verb)
	err = a.switchTo(ctx, rec, facts, s, to)
	done.Switching = err == nil
	return done, err
}

// abandons tells whether a roll-back ends the trial of a root that has not been good.
func (r *Record) abandons(root string) bool {
	return r.Phase == PhaseTrying && !slices.Contains(r.Good, root) && r.wayBack() != ""
}

// abandon leaves a root that is being tried as if it were not healthy: the guard that watched the way there watches the way
// back, no inhibitor lock is in the way, and what does not stop is killed. So it goes only where the guard is prepared to go.
func (a *Agent) abandon(ctx context.Context, f facts.Facts, rec *Record, to string, named bool) error {
	if err := a.underWay(ctx, rec); err != nil { // a power-off, for example
		return err
	}
	if back := rec.wayBack(); to != back {
		return fmt.Errorf("%w: until it is, the only way is back to %s, and from there to %s", ErrTrying, back, to)
	}
	return a.leave(ctx, f, rec, "rolled back", rolledBack, named)
}

// ready tells whether a root can be gone back to, and its version.
func (a *Agent) ready(st *store.Store, id string, f facts.Facts, rec *Record) (string, error) {
	if id == switcher.HostRoot {
		if err := rootfs.Acceptable(hostMount); err != nil {
			return "", fmt.Errorf("%w: the host root is not mounted at %s, and is again after a boot of the kernel: %w", ErrNoRoot, hostMount, err)
		}
		return "", a.passable(st, id, f)
	}
	root, err := st.Root(id)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoRoot, id, err)
	}
	if _, err := os.Stat(filepath.Join(root.Dir, "etc")); err != nil {
		return "", fmt.Errorf("%w: %s was staged but never ran; apply goes there", ErrNoRoot, id)
	}
	if err := a.passable(st, id, f); err != nil {
		return "", err
	}
	return root.Info.Version, a.graft(st, root, f, rec)
}
