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

// trial is what became of a live patch in one run.
type trial int

const (
	untried trial = iota
	over          // it is in the kernel, or will never be
	putOff        // it may still be loaded later
)

// nextToLoad chooses from a survey the first that waits and was not tried, as an index into it; -1 when there is none.
// What was put off would be out of turn once a later one is in the kernel, so that only one that stands in for it is
// loaded meanwhile.
func nextToLoad(list []LivePatch, trials []trial) int {
	for i, p := range list {
		if trials[i] != untried || !p.waits() {
			continue
		}
		if !passesOne(list[:i], trials, p) {
			return i
		}
	}
	return -1
}

// passesOne tells whether loading p would pass over one that was put off.
func passesOne(before []LivePatch, trials []trial, p LivePatch) bool {
	for i, b := range before {
		if trials[i] == putOff && !hasAll(p.Fixes, b.Fixes) {
			return true
		}
	}
	return false
}

// named chooses from a survey the live patch of that name, as an index into it: the one that is published, or else that
// which was published last. The error is an ErrOtherKernel, an ErrNoLivePatch or an ErrBlocked.
func named(list []LivePatch, name string) (take int, err error) {
	take = -1
	err = fmt.Errorf("%w: %s is neither stored nor published for this kernel", ErrNoLivePatch, name)
	for i, p := range list {
		switch {
		case p.Name != name:
		case p.State == LiveElsewhere:
			err = fmt.Errorf("%w: %s: %s", ErrOtherKernel, name, p.Reason)
		case p.Stored && (take < 0 || !p.withdrawn || list[take].withdrawn):
			take = i
		}
	}
	switch {
	case take < 0:
		return take, err
	case list[take].behind:
		return take, list[take].late()
	}
	return take, nil
}

// late is the error of one that would undo what is listed after it.
func (p LivePatch) late() error {
	return fmt.Errorf("%w: %s is listed before %s, which is in the kernel, and would undo it; `updatectl livepatch revert %s` first", ErrBlocked, p.Name, p.after, p.after)
}

// loadLive loads the stored live patches that wait, or the one that is named, and returns the names of those that are
// effective now. After every one it looks again: a cumulative one switches others off, and what stood in for one that did
// not load is to be loaded instead. It ends where no other could be loaded either. At boot, everything waits for it: what
// stalled before is left for later, and [livepatch] deadline is that of the whole run.
func (a *Agent) loadLive(ctx context.Context, f switcher.Facts, rec *Record, name string, atBoot bool) (done []string, err error) {
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
	trials := make([]trial, len(list))
	if atBoot {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(a.Config.LivePatch.Deadline))
		defer cancel()
		a.leaveStalled(f, list, trials)
	}
	var errs []error
	var took []int
	for {
		loaded, err := a.live.Patches()
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		// What somebody else loaded comes last and is not stored.
		now := survey(f, loaded, a.withNotes(f, list), rec.Held)[:len(list)]
		i := nextToLoad(now, trials)
		if name != "" && len(took)+len(errs) == 0 {
			i, err = named(now, name)
		} else if name != "" {
			i = -1
		}
		if err != nil {
			return nil, err
		}
		if i < 0 || ctx.Err() != nil {
			return effective(now, took), errors.Join(errs...)
		}
		err = a.loadOne(ctx, stored[i], policy, f, rec)
		if err == nil {
			err = a.keepOrder(ctx, f, now, stored, i)
		}
		if err == nil {
			trials[i], took = over, append(took, i)
			a.cleanSuperseded(stored, stored[i].Name)
			continue
		}
		if !atBoot || !errors.Is(err, context.DeadlineExceeded) { // its time was over before it was tried
			errs = append(errs, err)
		}
		trials[i], list[i].failed = afterFailure(err), true
		if endsLoading(err) {
			return effective(now, took), errors.Join(errs...)
		}
	}
}

// keepOrder looks at what the kernel has made of a live patch that was just loaded. What it has replaced is not to replace
// it in turn. One that came on top of what is listed after it is taken back.
func (a *Agent) keepOrder(ctx context.Context, f switcher.Facts, before []LivePatch, stored []patches.Stored, i int) error {
	loaded, err := a.live.Patches()
	if err != nil {
		return err
	}
	on := func(j int) bool {
		return slices.ContainsFunc(loaded, func(l livepatch.Patch) bool { return l.Name == stored[j].Name && l.Is(stored[j].Note) && l.On() })
	}
	late := func(j int) { a.note(f, func(n *notes) { set(&n.Late, stored[j].Descriptor.Digest, true) }) }
	for j, was := range before[:i] {
		if was.State == LiveEffective && !on(j) {
			late(j)
		}
	}
	for j := i + 1; j < len(before); j++ {
		if before[j].State != LiveEffective || !on(j) {
			continue
		}
		late(i)
		before[i].after = before[j].Name
		err := before[i].late()
		a.tell(Event{Event: "live patch failed", LivePatch: stored[i].Name, Reason: err.Error(), Kernel: f.KernelRelease})
		return errors.Join(err, a.live.Revert(context.WithoutCancel(ctx), stored[i].Name, time.Duration(a.Config.LivePatch.Deadline)))
	}
	return nil
}

// leaveStalled leaves for later what stalled since the kernel was booted.
func (a *Agent) leaveStalled(f switcher.Facts, list []known, trials []trial) {
	stalled := a.readNotes(f).Stalled
	for i, k := range list {
		if slices.Contains(stalled, k.Descriptor.Digest) {
			trials[i], list[i].failed = putOff, true
			a.Log.Info("a live patch that stalled is left for later", zap.String("live patch", k.Name))
		}
	}
}

// effective names those of a survey that are, in the order in which they were loaded.
func effective(list []LivePatch, took []int) (names []string) {
	for _, i := range took {
		if list[i].State == LiveEffective {
			names = append(names, list[i].Name)
		}
	}
	return names
}

// afterFailure tells whether a live patch may still be loaded later. What the kernel refuses will not be, and keeps no
// other one waiting.
func afterFailure(err error) trial {
	if errors.Is(err, livepatch.ErrKernel) || errors.Is(err, patches.ErrModule) || errors.Is(err, ErrBlocked) {
		return over
	}
	return putOff
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
	a.note(f, func(n *notes) { set(&n.Stalled, s.Descriptor.Digest, errors.Is(err, livepatch.ErrStalled)) })
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
		case name == "" && !p.Stored, name != "" && p.Name != name, p.State == LiveElsewhere, slices.Contains(r.Reverted, p.Name):
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
	done, err := a.loadLive(ctx, f, rec, "", false)
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
	w.done.Loaded, err = a.loadLive(ctx, w.facts, w.rec, "", false)
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
	a.note(f, func(n *notes) { n.Stalled = nil }) // that which is restarted for is tried at once
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
		a.tell(Event{Event: "collected", LivePatch: name, Reason: "neither for a kernel of this host nor listed by the release of a root that is kept"})
	}
}

// gcLive removes the live patches that nothing needs, and returns their names: kept are those of the last release for the
// kernels that the host may run, those that are in the kernel, and those that the release of a kept root lists.
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
		current := s.Evidence == kept[0] && a.mayRun(f, s.LivePatch)
		inKernel := slices.ContainsFunc(loaded, func(p livepatch.Patch) bool { return p.Name == s.Name && p.Is(s.Note) })
		return current || inKernel || listed[s.Descriptor.Digest]
	})
}
