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
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// nextToLoad returns the index of the first in a survey that waits and was not tried, -1 when there is none. As the
// last one listed supersedes the others, that is the last one, or a transition that nobody watches any more.
func nextToLoad(list []LivePatch, known []knownLivePatch) int {
	for i, p := range list {
		if p.waits() && !known[i].tried {
			return i
		}
	}
	return -1
}

// indexOfNamed returns the index of the live patch of that name in a survey: of the one that is published, or else of
// the one that was published last. The error is an ErrOtherKernel, an ErrNoLivePatch or an ErrBlocked.
func indexOfNamed(list []LivePatch, name string) (int, error) {
	take := -1
	err := fmt.Errorf("%w: %s is neither stored nor published for this kernel", ErrNoLivePatch, name)
	for i, p := range list {
		switch {
		case p.Name != name:
		case p.State == LiveElsewhere:
			err = fmt.Errorf("%w: %s: %s", ErrOtherKernel, name, p.Reason)
		case p.Stored && (take < 0 || !p.withdrawn || list[take].withdrawn):
			take = i
		}
	}
	if take < 0 {
		return take, err
	}
	for _, later := range list[take+1:] {
		if later.Stored && !later.withdrawn && later.On() && !list[take].On() {
			return take, fmt.Errorf("%w: %s is superseded by %s, which is in the kernel; `updatectl livepatch revert %s` first",
				ErrBlocked, name, later.Name, later.Name)
		}
	}
	return take, nil
}

// loadLive loads the last of the stored live patches that wait, or the one that is named, and returns the names of
// those that are effective now. After every one it looks again: when the last one does not load, the one listed
// before it is loaded instead. It ends where no other could be loaded either. At boot, everything waits for it: what
// stalled before is left for later, and [livepatch] deadline is that of the whole run.
func (a *Agent) loadLive(ctx context.Context, f facts.Facts, rec *Record, name string, atBoot bool) (done []string, err error) {
	if err := a.holdFatal(f, rec); err != nil {
		return nil, err
	}
	run := liveRun{facts: f, record: rec}
	if run.policy, err = a.policy(); err != nil {
		return nil, err
	}
	if run.known, run.stored, err = a.storedLivePatches(ctx, nil); err != nil {
		return nil, err
	}
	if atBoot {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(a.Config.LivePatch.Deadline))
		defer cancel()
		a.leaveStalled(f, run.known)
	}
	var errs []error
	var took []int
	for first := true; ; first = false {
		loaded, err := a.live.Patches()
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		// What somebody else loaded comes last and is not stored.
		now := survey(f, loaded, run.known, rec.Held)[:len(run.known)]
		i := nextToLoad(now, run.known)
		switch {
		case name != "" && first:
			if i, err = indexOfNamed(now, name); err != nil {
				return nil, err
			}
		case name != "":
			i = -1
		}
		if i < 0 || ctx.Err() != nil {
			return effectiveNames(now, took), errors.Join(errs...)
		}
		run.known[i].tried = true
		err = a.loadOne(ctx, run, i, now[i].State == LiveEffective)
		switch {
		case err == nil:
			took = append(took, i)
		case !atBoot || !errors.Is(err, context.DeadlineExceeded): // otherwise its time was over before it was tried
			errs = append(errs, err)
		}
		if err != nil && endsLoading(err) {
			return effectiveNames(now, took), errors.Join(errs...)
		}
	}
}

// liveRun is what one run of loadLive works on: known and stored are the same live patches in the same order.
type liveRun struct {
	facts  facts.Facts
	record *Record
	policy verify.Policy
	known  []knownLivePatch
	stored []patches.Stored
}

// takeOutStacked takes a live patch that was just loaded out again when the kernel still runs another one of ours: it
// is not cumulative, and of a function that both change the kernel would run the one that came last. Whether a live
// patch is cumulative shows only then: neither its file nor, before Linux 6.11, /sys says it. The error is an
// ErrBlocked.
func (a *Agent) takeOutStacked(ctx context.Context, run liveRun, name string) error {
	loaded, err := a.live.Patches()
	if err != nil {
		return err
	}
	below := slices.IndexFunc(run.known, func(k knownLivePatch) bool { return k.Name != name && k.isOn(loaded) })
	if below < 0 {
		return nil
	}
	other := run.known[below].Name
	err = fmt.Errorf("%w: %s is not cumulative and cannot be loaded beside %s; `updatectl livepatch revert %s` first",
		ErrBlocked, name, other, other)
	return errors.Join(err, a.live.Revert(context.WithoutCancel(ctx), name, time.Duration(a.Config.LivePatch.Deadline)))
}

// leaveStalled marks what stalled since the kernel was booted as tried, so that it is left for later.
func (a *Agent) leaveStalled(f facts.Facts, known []knownLivePatch) {
	stalled := a.readLiveNotes(f).Stalled
	for i, k := range known {
		if slices.Contains(stalled, k.Descriptor.Digest) {
			known[i].tried = true
			a.Log.Info("a live patch that stalled is left for later", zap.String("live patch", k.Name))
		}
	}
}

// effectiveNames names those of a survey that were loaded and are effective, in the order in which they were loaded.
func effectiveNames(list []LivePatch, took []int) (names []string) {
	for _, i := range took {
		if list[i].State == LiveEffective {
			names = append(names, list[i].Name)
		}
	}
	return names
}

// endsLoading reports whether no other live patch could be loaded either.
func endsLoading(err error) bool {
	var stalled *livepatch.Stalled
	return errors.Is(err, livepatch.ErrUnsupported) || errors.Is(err, livepatch.ErrBusy) ||
		errors.As(err, &stalled) && (stalled.Back != nil || stalled.Backwards)
}

// holdFatal holds the live patch that was being loaded when the host went down: loaded at every boot, it would take
// the host down every time.
func (a *Agent) holdFatal(f facts.Facts, rec *Record) error {
	l := rec.Loading
	if l == nil {
		return nil
	}
	rec.Loading = nil
	if l.BootID != f.BootID {
		a.holdLivePatch(rec, l.Name, "the host went down while it was being loaded")
		a.Log.Error("a live patch is not loaded any more: the host went down with it", zap.String("live patch", l.Name))
	}
	return a.writeRecord(rec)
}

// holdLivePatch keeps a live patch from being loaded automatically.
func (a *Agent) holdLivePatch(rec *Record, name, reason string) {
	if rec.Held == nil {
		rec.Held = map[string]Held{}
	}
	rec.Held[name] = Held{Reason: reason, At: a.Now().UTC()}
	a.tell(Event{Event: "live patch held", LivePatch: name, Reason: reason})
}

// loadOne verifies a stored live patch again and loads it; wasEffective is whether the kernel runs it already. The
// record names it for as long as that takes.
func (a *Agent) loadOne(ctx context.Context, run liveRun, i int, wasEffective bool) error {
	s, f, rec := run.stored[i], run.facts, run.record
	l, err := a.livePatches().Load(ctx, s, run.policy)
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
	if err == nil && !wasEffective {
		err = a.takeOutStacked(ctx, run, s.Name)
	}
	rec.Loading = nil
	if writeErr := a.writeRecord(rec); writeErr != nil {
		a.Log.Warn(writeErr.Error())
	}
	a.noteStalled(f, s.Descriptor.Digest, errors.Is(err, livepatch.ErrStalled))
	if err != nil {
		a.tell(Event{Event: "live patch failed", LivePatch: s.Name, Reason: err.Error(), Kernel: f.KernelRelease})
		a.logBlockers(err)
		return withRestartAdvice(err, f)
	}
	a.tell(Event{Event: "live patch effective", LivePatch: s.Name, Vouchers: l.Vouchers, Kernel: f.KernelRelease})
	a.Log.Info("the live patch is effective", zap.String("live patch", s.Name))
	a.cleanReplaced(run.stored, s.Name)
	return nil
}

// withRestartAdvice adds to the error of a stalled transition that a soft reboot would let it through, where it
// would, and whether this host can have one.
func withRestartAdvice(err error, f facts.Facts) error {
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
		a.Log.Warn("a task blocks the live patch", zap.String("live patch", stalled.Name),
			zap.String("task", b.String()), zap.Strings("stack", b.Stack))
	}
}

// cleanReplaced removes the modules of ours that a cumulative live patch has replaced: the kernel has switched them
// off and leaves them in memory.
func (a *Agent) cleanReplaced(stored []patches.Stored, by string) {
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

// LivePatchRevert takes a live patch out of the kernel, or with "" all of ours, the last one first. It is not loaded
// again automatically.
func (a *Agent) LivePatchRevert(ctx context.Context, name string, wait bool) (LivePatchReport, error) {
	unlock, facts, rec, err := a.beginLive(ctx, "livepatch revert", wait)
	if err != nil {
		return LivePatchReport{}, err
	}
	defer unlock()
	return a.livePatchRevert(ctx, name, facts, rec)
}

func (a *Agent) livePatchRevert(ctx context.Context, name string, f facts.Facts, rec *Record) (r LivePatchReport, err error) {
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

// revertOne records that a live patch is not wanted before it takes it out. One that is not loaded is only held.
func (a *Agent) revertOne(ctx context.Context, p LivePatch, rec *Record) error {
	a.holdLivePatch(rec, p.Name, "taken back by the operator")
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

// loadBeforeSwitch loads what waits before userspace switches to another root. One that does not load does not stop
// the switch: it is tried again when the new root is good, and then fewer old tasks block a transition that stalled.
func (a *Agent) loadBeforeSwitch(ctx context.Context, w *work) {
	done, err := a.loadWaiting(ctx, w.facts, w.rec)
	w.done.Loaded = done
	if err != nil {
		w.done.Warnings = append(w.done.Warnings, fmt.Sprintf("%v; it is tried again after the switch", err))
	}
}

// loadWaiting loads what waits, if the configuration enables live patches, and logs what does not load.
func (a *Agent) loadWaiting(ctx context.Context, f facts.Facts, rec *Record) ([]string, error) {
	if !a.Config.LivePatch.Enabled {
		return nil, nil
	}
	done, err := a.loadLive(ctx, f, rec, "", false)
	if err != nil {
		a.Log.Error("not every live patch is effective", zap.Error(err))
	}
	return done, err
}

// applyLive is apply for a host that runs the published root already, or for a release without an image: only live
// patches change. With level soft it restarts userspace in the same root when that would let a stalled one through.
func (a *Agent) applyLive(ctx context.Context, w *work, wish level.Level) error {
	if w.offer.release == nil || !a.Config.LivePatch.Enabled {
		return nil
	}
	var err error
	w.done.Loaded, err = a.loadLive(ctx, w.facts, w.rec, "", false)
	if len(w.done.Loaded) > 0 {
		w.done.Level = level.Live
	}
	if (errors.Is(err, ErrSoftRebootHelps) || errors.Is(err, errNoRestart)) && wish == level.Soft {
		w.done.Warnings = append(w.done.Warnings, err.Error())
		if err = a.restart(ctx, w.facts, err.Error()); err == nil {
			w.done.Level, w.done.Restarting = level.Soft, true
		}
	}
	a.collectLive(w.store, w.facts, w.rec)
	var listErr error
	w.done.LivePatches, listErr = a.survey(ctx, w.facts, w.rec)
	return errors.Join(err, listErr)
}

// restart restarts userspace in the running root: with nothing armed, systemd comes back in it. updatectl-livepatch
// loads what is stored before the services start again. The error is an ErrIncompatible or an ErrFullReboot where the
// host should not soft-reboot.
func (a *Agent) restart(ctx context.Context, f facts.Facts, why string) error {
	if err := restartable(f); err != nil {
		return err
	}
	// As in switchTo: it ends this process.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	a.writeLiveNotes(liveNotes{BootID: f.BootID}) // what it restarts for is tried at once
	if err := a.Machine.PID1.SoftReboot(ctx); err != nil {
		if errors.Is(err, pid1.ErrInhibited) {
			err = fmt.Errorf("%w: %w", ErrBlocked, err)
		}
		return err
	}
	a.tell(Event{Event: "restarting", Root: f.Root, Reason: why, Kernel: f.KernelRelease})
	return nil
}

// collectLive removes the live patches that nothing needs since the last release was stored. It leaves the roots
// alone.
func (a *Agent) collectLive(st *store.Store, f facts.Facts, rec *Record) {
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

// gcLive removes the live patches that nothing needs, and returns their names: kept are those of the last release for
// the kernels that the host may run, those that are in the kernel, and those that the release of a kept root lists.
func (a *Agent) gcLive(st *store.Store, f facts.Facts, roots []string) ([]string, error) {
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
	if err != nil { // without a policy, no release can be read
		return nil, nil
	}
	listed := map[digest.Digest]bool{}
	for _, r := range a.releases(ctx, st, policy, roots) {
		for _, p := range r.LivePatches {
			listed[p.Descriptor.Digest] = true
		}
	}
	return a.livePatches().GC(ctx, func(s patches.Stored) bool {
		current := s.Evidence == kept[0] && a.mayRunKernelOf(f, s.LivePatch)
		inKernel := slices.ContainsFunc(loaded, func(p livepatch.Patch) bool { return p.Name == s.Name && p.Is(s.Note) })
		return current || inKernel || listed[s.Descriptor.Digest]
	})
}
