package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/verify"
)

// toLoad chooses what to load from a survey, as indexes into it: what waits, or the one that is named. The error is an
// ErrOtherKernel or ErrNoLivePatch, and only about a named one.
func toLoad(list []LivePatch, name string) (take []int, err error) {
	err = fmt.Errorf("%w: %s is neither stored nor published for this kernel", ErrNoLivePatch, name)
	for i, p := range list {
		switch {
		case name == "" && p.waits(), p.Name == name && p.Stored && p.State != LiveElsewhere:
			take = append(take, i)
		case p.Name == name && p.State == LiveElsewhere:
			err = fmt.Errorf("%w: %s: %s", ErrOtherKernel, name, p.Reason)
		}
	}
	if name == "" || len(take) > 0 {
		return take, nil
	}
	return nil, err
}

// loadLive loads the stored live patches that wait, or the one that is named, and returns the names of those that became
// effective. It goes on after one that the kernel refuses, and ends where no other could be loaded either.
func (a *Agent) loadLive(ctx context.Context, f switcher.Facts, rec *Record, name string) (done []string, err error) {
	if err := a.holdFatal(f, rec); err != nil {
		return nil, err
	}
	policy, err := a.policy()
	if err != nil {
		return nil, err
	}
	list, stored, err := a.stored(ctx, nil)
	if err != nil {
		return nil, err
	}
	loaded, err := a.live.Patches()
	if err != nil {
		return nil, err
	}
	// What somebody else loaded comes last and is not stored.
	take, err := toLoad(survey(f, loaded, list, rec.Held), name)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, i := range take {
		err := a.loadOne(ctx, stored[i], policy, f, rec)
		if err == nil {
			done = append(done, stored[i].Name)
			a.cleanSuperseded(stored, stored[i].Name)
			continue
		}
		errs = append(errs, err)
		if endsLoading(err) || ctx.Err() != nil {
			break
		}
	}
	return done, errors.Join(errs...)
}

// endsLoading tells that no other live patch could be loaded either.
func endsLoading(err error) bool {
	var stalled *livepatch.Stalled
	return errors.Is(err, livepatch.ErrUnsupported) || errors.Is(err, livepatch.ErrBusy) || errors.As(err, &stalled) && stalled.Back != nil
}

// holdFatal holds the live patch that was being loaded when the host went down: loaded at every boot, it would take the
// host down at every boot.
func (a *Agent) holdFatal(f switcher.Facts, rec *Record) error {
	l := rec.Loading
	if l == nil {
		return nil
	}
	rec.Loading = nil
	if l.BootID != f.BootID {
		a.hold(rec, l.Name, "the host went down while it was being loaded")
		a.Log.Error("a live patch is not loaded any more: the host went down with it", zap.String("live patch", l.Name))
	}
	return a.writeRecord(rec)
}

// hold keeps a live patch from being loaded by itself.
func (a *Agent) hold(rec *Record, name, reason string) {
	if rec.Held == nil {
		rec.Held = map[string]Held{}
	}
	rec.Held[name] = Held{Reason: reason, At: a.Now().UTC()}
	a.tell(Event{Event: "live patch held", LivePatch: name, Reason: reason})
}

// loadOne has a stored live patch verified again and loads it. The record names it for as long as that lasts.
func (a *Agent) loadOne(ctx context.Context, s patches.Stored, policy verify.Policy, f switcher.Facts, rec *Record) error {
	l, err := a.livePatches().Load(ctx, s, policy)
	if err == nil {
		err = l.CheckMachine(f.Architecture)
	}
	if err != nil {
		return err
	}
	rec.Loading = &Loading{Name: s.Name, BootID: f.BootID}
	if err := a.writeRecord(rec); err != nil {
		return err
	}
	m := livepatch.Module{Name: l.Name, Content: l.Content, Note: l.Note, Signed: l.Signed}
	err = a.live.Load(ctx, m, time.Duration(a.Config.LivePatch.Deadline))
	rec.Loading = nil
	if writeErr := a.writeRecord(rec); writeErr != nil {
		a.Log.Warn(writeErr.Error())
	}
	if err != nil {
		a.tell(Event{Event: "live patch failed", LivePatch: s.Name, Reason: err.Error(), Kernel: f.KernelRelease})
		a.logBlockers(err)
		return helped(err, f)
	}
	a.tell(Event{Event: "live patch effective", LivePatch: s.Name, Vouchers: l.Vouchers, Kernel: f.KernelRelease})
	a.Log.Info("the live patch is effective", zap.String("live patch", s.Name))
	return nil
}

// helped marks a stalled transition that a soft reboot would let through, and whether this host can have one.
func helped(err error, f switcher.Facts) error {
	var stalled *livepatch.Stalled
	if !errors.As(err, &stalled) || stalled.Back != nil || !stalled.ClearedBySoftReboot() {
		return err
	}
	if restartable(f) != nil {
		return fmt.Errorf("%w; %w", err, errNoRestart)
	}
	return fmt.Errorf("%w; %w", err, ErrSoftRebootHelps)
}

// logBlockers writes the stacks of the tasks that block, which are too long for an error.
func (a *Agent) logBlockers(err error) {
	var stalled *livepatch.Stalled
	if !errors.As(err, &stalled) {
		return
	}
	for _, b := range stalled.Blockers {
		a.Log.Warn("a task blocks the live patch", zap.String("live patch", stalled.Name), zap.String("task", b.String()), zap.Strings("stack", b.Stack))
	}
}

// cleanSuperseded takes out the modules of ours that a cumulative live patch has replaced: the kernel has switched them off,
// and leaves them in memory.
func (a *Agent) cleanSuperseded(stored []patches.Stored, by string) {
	for _, s := range stored {
		if s.Name == by {
			continue
		}
		cleaned, err := a.live.Clean(s.Name)
		if err != nil {
			a.Log.Warn("cannot take out a live patch that was replaced", zap.Error(err))
		} else if cleaned {
			a.tell(Event{Event: "live patch replaced", LivePatch: s.Name, Reason: "by " + by})
		}
	}
}

// LivePatchRevert takes a live patch out of the kernel, or with "" all of ours, the last one first. It is not loaded again by
// itself.
func (a *Agent) LivePatchRevert(ctx context.Context, name string, wait bool) (LivePatchReport, error) {
	unlock, facts, rec, err := a.beginLive(ctx, "livepatch revert", wait)
	if err != nil {
		return LivePatchReport{}, err
	}
	defer unlock()
	return a.livePatchRevert(ctx, name, facts, rec)
}

func (a *Agent) livePatchRevert(ctx context.Context, name string, f switcher.Facts, rec *Record) (r LivePatchReport, err error) {
	list, err := a.survey(ctx, f, rec)
	if err != nil {
		return r, err
	}
	for _, p := range slices.Backward(list) {
		switch {
		case name == "" && !p.Stored, name != "" && p.Name != name, p.State == LiveElsewhere:
			continue
		case p.State != LiveEffective && p.State != LiveTransition && p.State != LiveLeaving && p.State != LiveDisabled && name == "":
			continue
		}
		if err := a.revertOne(ctx, p, rec); err != nil {
			return r, err
		}
		r.Reverted = append(r.Reverted, p.Name)
	}
	if name != "" && len(r.Reverted) == 0 {
		return r, fmt.Errorf("%w: %s", ErrNoLivePatch, name)
	}
	r.Patches, err = a.survey(ctx, f, rec)
	return r, err
}

// revertOne writes down that a live patch is not wanted before it is taken out. One that is not loaded is only held.
func (a *Agent) revertOne(ctx context.Context, p LivePatch, rec *Record) error {
	a.hold(rec, p.Name, "taken back by the operator")
	if err := a.writeRecord(rec); err != nil {
		return err
	}
	err := a.live.Revert(ctx, p.Name, time.Duration(a.Config.LivePatch.Deadline))
	if errors.Is(err, livepatch.ErrNotLoaded) {
		return nil
	}
	if err != nil {
		a.logBlockers(err)
		return err
	}
	a.tell(Event{Event: "live patch reverted", LivePatch: p.Name})
	return nil
}

// loadBeforeSwitch loads what waits before userspace leaves for another root. What does not load is no reason to stay: it is
// loaded when the new root is good, and a transition that stalled has fewer old tasks in its way then.
func (a *Agent) loadBeforeSwitch(ctx context.Context, w *work) {
	done, err := a.loadWaiting(ctx, w.facts, w.rec)
	w.done.Loaded = done
	if err != nil {
		w.done.Warnings = append(w.done.Warnings, fmt.Sprintf("%v; it is tried again after the switch", err))
	}
}

// loadWaiting loads what waits, if that is what the configuration says, and logs what does not load.
func (a *Agent) loadWaiting(ctx context.Context, f switcher.Facts, rec *Record) ([]string, error) {
	if !a.Config.LivePatch.Enabled {
		return nil, nil
	}
	done, err := a.loadLive(ctx, f, rec, "")
	if err != nil {
		a.Log.Error("not every live patch is effective", zap.Error(err))
	}
	return done, err
}

// applyLive is apply for a host that runs the published root already, or a release without an image: only live patches
// change. With level soft it restarts userspace in the same root when that would let a stalled one through.
func (a *Agent) applyLive(ctx context.Context, w *work, wish switcher.Level) error {
	if w.offer.release == nil || !a.Config.LivePatch.Enabled {
		return nil
	}
	var err error
	w.done.Loaded, err = a.loadLive(ctx, w.facts, w.rec, "")
	if len(w.done.Loaded) > 0 {
		w.done.Level = switcher.LevelLive
	}
	if (errors.Is(err, ErrSoftRebootHelps) || errors.Is(err, errNoRestart)) && wish == switcher.LevelSoft {
		w.done.Warnings = append(w.done.Warnings, err.Error())
		if err = a.restart(ctx, w.facts, err.Error()); err == nil {
			w.done.Level, w.done.Restarting = switcher.LevelSoft, true
		}
	}
	a.collectLive(w.store, w.facts, w.rec)
	var listErr error
	w.done.LivePatches, listErr = a.survey(ctx, w.facts, w.rec)
	return errors.Join(err, listErr)
}

// restart has userspace restarted in the root that runs: with nothing armed, systemd comes back in it. updatectl-livepatch
// loads what is stored before the services start again. It is ErrIncompatible or ErrFullReboot where the host should not
// soft-reboot.
func (a *Agent) restart(ctx context.Context, f switcher.Facts, why string) error {
	if err := restartable(f); err != nil {
		return err
	}
	// As in switchTo: it ends this very process.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	if err := a.Machine.SoftReboot(ctx); err != nil {
		if errors.Is(err, switcher.ErrInhibited) {
			err = fmt.Errorf("%w: %w", ErrBlocked, err)
		}
		return err
	}
	a.tell(Event{Event: "restarting", Root: f.Root, Reason: why, Kernel: f.KernelRelease})
	return nil
}

// collectLive removes what the release that was just kept made needless. Roots stay: nothing about them has changed.
func (a *Agent) collectLive(st *store.Store, f switcher.Facts, rec *Record) {
	removed, err := a.gcLive(st, f, rec.keep(f.Root))
	if err != nil {
		a.Log.Warn("cannot remove live patches that nothing needs", zap.Error(err))
	}
	a.tellCollected(removed)
}

func (a *Agent) tellCollected(livePatches []string) {
	for _, name := range livePatches {
		a.tell(Event{Event: "collected", LivePatch: name, Reason: "neither for this kernel nor listed by the release of a root that is kept"})
	}
}

// gcLive removes the live patches that nothing needs, and returns their names: kept are those of the last release for the
// running kernel, those that are in the kernel, and those that the release of a kept root lists.
func (a *Agent) gcLive(st *store.Store, f switcher.Facts, roots []string) ([]string, error) {
	ctx := context.Background()
	kept, err := a.livePatches().Releases(ctx)
	if err != nil || len(kept) == 0 {
		return nil, err
	}
	loaded, err := a.live.Patches()
	if err != nil {
		return nil, err
	}
	policy, err := a.policy()
	if err != nil { // without one, nothing says what the releases list
		return nil, nil
	}
	listed := map[digest.Digest]bool{}
	for _, r := range a.releases(ctx, st, policy, roots) {
		for _, p := range r.LivePatches {
			listed[p.Descriptor.Digest] = true
		}
	}
	return a.livePatches().GC(ctx, func(s patches.Stored) bool {
		current := misfit(f, s.LivePatch) == "" && s.Evidence == kept[0]
		inKernel := slices.ContainsFunc(loaded, func(p livepatch.Patch) bool { return p.Name == s.Name })
		return current || inKernel || listed[s.Descriptor.Digest]
	})
}
