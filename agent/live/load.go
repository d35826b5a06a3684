package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/verify"
)

// nextToLoad returns the index of the first live patch in a survey that waits and has not been tried, or -1. Because
// the last one listed supersedes the others, that is the last one, or one in a transition that nobody watches any more.
func nextToLoad(list []LivePatch, listed []knownLivePatch) int {
	for i, p := range list {
		if p.waits() && !listed[i].tried {
			return i
		}
	}
	return -1
}

// indexOfNamed returns the index of the live patch with that name in a survey: the published one, otherwise the one
// that was published last. The error is an ErrOtherKernel, an ErrNoLivePatch or a record.ErrBlocked.
func indexOfNamed(list []LivePatch, name string) (int, error) {
	found := -1
	err := fmt.Errorf("%w: %s is neither stored nor published for this kernel", ErrNoLivePatch, name)
	for i, p := range list {
		switch {
		case p.Name != name:
		case p.State == LiveElsewhere:
			err = fmt.Errorf("%w: %s: %s", ErrOtherKernel, name, p.Reason)
		case p.Stored && (found < 0 || !p.withdrawn || list[found].withdrawn):
			found = i
		}
	}
	if found < 0 {
		return found, err
	}
	for _, later := range list[found+1:] {
		if later.Stored && !later.withdrawn && later.On() && !list[found].On() {
			return found, fmt.Errorf(
				"%w: %s is superseded by %s, which is in the kernel; `updatectl livepatch revert %s` first",
				record.ErrBlocked, name, later.Name, later.Name)
		}
	}
	return found, nil
}

// Load loads the last of the stored live patches that wait, or with a name only the one with that name. It returns the
// names of those that it loaded and that are effective. If a live patch does not load, the one listed before it is
// tried, unless the error means that no other would load either. With atBoot, the boot waits for it: what stalled since
// the kernel booted is skipped, and [livepatch] deadline bounds the whole run.
func (lp *Patches) Load(
	ctx context.Context, f facts.Facts, rec *record.Record, name string, atBoot bool,
) (done []string, err error) {
	if err := lp.HoldFatal(f, rec); err != nil {
		return nil, err
	}
	run := liveRun{facts: f, record: rec}
	if run.policy, err = lp.Policy(); err != nil {
		return nil, err
	}
	if run.listed, run.stored, err = lp.storedLivePatches(ctx, nil); err != nil {
		return nil, err
	}
	if atBoot {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(lp.Config.LivePatch.Deadline))
		defer cancel()
		lp.skipStalled(f, run.listed)
	}
	var errs []error
	var succeeded []int
	for first := true; ; first = false {
		loaded, err := lp.Kernel.Patches()
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		// Live patches of others come last and are not stored.
		now := SurveyOf(f, loaded, run.listed, rec.Held)[:len(run.listed)]
		i := nextToLoad(now, run.listed)
		switch {
		case name != "" && first:
			if i, err = indexOfNamed(now, name); err != nil {
				return nil, err
			}
		case name != "":
			i = -1
		}
		if i < 0 || ctx.Err() != nil {
			return effectiveNames(now, succeeded), errors.Join(errs...)
		}
		run.listed[i].tried = true
		err = lp.loadOne(ctx, run, i, now[i].State == LiveEffective)
		switch {
		case err == nil:
			succeeded = append(succeeded, i)
		case !atBoot || !errors.Is(err, context.DeadlineExceeded): // otherwise the deadline passed before it was tried
			errs = append(errs, err)
			lp.Log.Info("the live patch is not effective", event.LivePatchFailed.Field(),
				zap.String("live patch", run.listed[i].Name), zap.Error(err))
		}
		if err != nil && endsLoading(err) {
			return effectiveNames(now, succeeded), errors.Join(errs...)
		}
	}
}

// liveRun is what one run of Load works on. The lists have the same live patches in the same order.
type liveRun struct {
	facts  facts.Facts
	record *record.Record
	policy verify.Policy
	listed []knownLivePatch
	stored []patches.Stored
}

// takeOutStacked reverts a live patch that was just loaded if the kernel still runs another one of ours: it is not
// cumulative, and where both change a function, the kernel would run the one that was loaded last. Only now does it
// show whether a live patch is cumulative: neither its file nor, before Linux 6.11, /sys says so. The error is a
// record.ErrBlocked.
func (lp *Patches) takeOutStacked(ctx context.Context, run liveRun, name string) error {
	loaded, err := lp.Kernel.Patches()
	if err != nil {
		return err
	}
	below := slices.IndexFunc(run.listed, func(k knownLivePatch) bool { return k.Name != name && k.isOn(loaded) })
	if below < 0 {
		return nil
	}
	other := run.listed[below].Name
	err = fmt.Errorf("%w: %s is not cumulative and cannot be loaded beside %s; `updatectl livepatch revert %s` first",
		record.ErrBlocked, name, other, other)
	deadline := time.Duration(lp.Config.LivePatch.Deadline)
	return errors.Join(err, lp.Kernel.Revert(context.WithoutCancel(ctx), name, deadline))
}

// skipStalled marks as tried the live patches that stalled since the kernel booted, so that this run skips them.
func (lp *Patches) skipStalled(f facts.Facts, listed []knownLivePatch) {
	stalled := lp.ReadNotes(f).Stalled
	for i, k := range listed {
		if slices.Contains(stalled, k.Descriptor.Digest) {
			listed[i].tried = true
			lp.Log.Info("a live patch that stalled is skipped at boot", zap.String("live patch", k.Name))
		}
	}
}

// effectiveNames returns the names of the loaded live patches that are effective in a survey, in the order in which
// they were loaded.
func effectiveNames(list []LivePatch, loaded []int) (names []string) {
	for _, i := range loaded {
		if list[i].State == LiveEffective {
			names = append(names, list[i].Name)
		}
	}
	return names
}

// endsLoading reports whether an error means that no other live patch would load either.
func endsLoading(err error) bool {
	var stalled *livepatch.Stalled
	return errors.Is(err, livepatch.ErrUnsupported) || errors.Is(err, livepatch.ErrBusy) ||
		errors.As(err, &stalled) && (stalled.Back != nil || stalled.Backwards)
}

// HoldFatal holds the live patch that was being loaded when the host went down: loaded at every boot, it might take the
// host down every time. It writes the record if there was one.
func (lp *Patches) HoldFatal(f facts.Facts, rec *record.Record) error {
	l := rec.Loading
	if l == nil {
		return nil
	}
	rec.Loading = nil
	if l.BootID != f.BootID {
		lp.holdLivePatch(rec, l.Name, "the host went down while it was being loaded")
		lp.Log.Error("the live patch is held: the host went down while it was being loaded", event.LivePatchHeld.Field(),
			zap.String("live patch", l.Name))
	}
	return lp.Records.Write(rec)
}

// holdLivePatch records that a live patch must not be loaded automatically.
func (lp *Patches) holdLivePatch(rec *record.Record, name, reason string) {
	if rec.Held == nil {
		rec.Held = map[string]record.Held{}
	}
	rec.Held[name] = record.Held{Reason: reason, At: lp.Now().UTC()}
	lp.Records.AppendEvent(record.Event{Event: record.EventLiveHeld, LivePatch: name, Reason: reason})
}

// loadOne verifies a stored live patch again and loads it; wasEffective is whether the kernel already runs it.
// Meanwhile the record names it, so that [Patches.HoldFatal] finds it if the host goes down.
func (lp *Patches) loadOne(ctx context.Context, run liveRun, i int, wasEffective bool) error {
	s, f, rec := run.stored[i], run.facts, run.record
	l, err := lp.Store().Load(ctx, s, run.policy)
	if err == nil {
		err = l.CheckMachine(f.Architecture)
	}
	if err != nil {
		return err
	}
	rec.Loading = &record.Loading{Name: s.Name, BootID: f.BootID}
	if err := lp.Records.Write(rec); err != nil {
		return err
	}
	m := livepatch.Module{Name: l.Name, Content: l.Content, Note: l.Note, Signed: l.Signed}
	err = lp.Kernel.Load(ctx, m, time.Duration(lp.Config.LivePatch.Deadline))
	if err == nil && !wasEffective {
		err = lp.takeOutStacked(ctx, run, s.Name)
	}
	rec.Loading = nil
	if writeErr := lp.Records.Write(rec); writeErr != nil {
		lp.Log.Warn(writeErr.Error())
	}
	lp.noteStalled(f, s.Descriptor.Digest, errors.Is(err, livepatch.ErrStalled))
	if err != nil {
		lp.Records.AppendEvent(record.Event{
			Event: record.EventLiveFailed, LivePatch: s.Name, Reason: err.Error(), Kernel: f.KernelRelease,
		})
		lp.logBlockers(err)
		return withRestartAdvice(err, f)
	}
	lp.Records.AppendEvent(record.Event{
		Event: record.EventLiveEffective, LivePatch: s.Name, Vouchers: l.Vouchers, Kernel: f.KernelRelease,
	})
	lp.Log.Info("the live patch is effective", event.LivePatchEffective.Field(), zap.String("live patch", s.Name))
	lp.cleanReplaced(run.stored, s.Name)
	return nil
}

// withRestartAdvice adds to the error of a stalled transition, if a soft reboot would end all tasks that block it:
// ErrSoftRebootHelps, or ErrNoRestart where this host cannot have one.
func withRestartAdvice(err error, f facts.Facts) error {
	var stalled *livepatch.Stalled
	if !errors.As(err, &stalled) || stalled.Back != nil || !stalled.ClearedBySoftReboot() {
		return err
	}
	if roots.Restartable(f) != nil {
		return fmt.Errorf("%w; %w", err, ErrNoRestart)
	}
	return fmt.Errorf("%w; %w", err, ErrSoftRebootHelps)
}

// logBlockers logs the stacks of the tasks that block a transition, which are too long for an error.
func (lp *Patches) logBlockers(err error) {
	var stalled *livepatch.Stalled
	if !errors.As(err, &stalled) {
		return
	}
	for _, b := range stalled.Blockers {
		lp.Log.Warn("a task blocks the live patch", zap.String("live patch", stalled.Name),
			zap.String("task", b.String()), zap.Strings("stack", b.Stack))
	}
}

// cleanReplaced unloads the modules of our live patches that a cumulative one has replaced: the kernel switches them
// off and keeps them in memory.
func (lp *Patches) cleanReplaced(stored []patches.Stored, by string) {
	for _, s := range stored {
		if s.Name == by {
			continue
		}
		cleaned, err := lp.Kernel.Clean(s.Name)
		if err != nil {
			lp.Log.Warn("cannot unload a live patch that was replaced", zap.Error(err))
		} else if cleaned {
			lp.Records.AppendEvent(record.Event{Event: record.EventLiveReplaced, LivePatch: s.Name, Reason: "by " + by})
		}
	}
}

// Revert holds a live patch and then takes it out of the kernel. One that is not loaded is only held. The error is a
// *livepatch.Stalled when tasks still run its code at the deadline.
func (lp *Patches) Revert(ctx context.Context, p LivePatch, rec *record.Record) error {
	lp.holdLivePatch(rec, p.Name, "reverted by the operator")
	if err := lp.Records.Write(rec); err != nil {
		return err
	}
	err := lp.Kernel.Revert(ctx, p.Name, time.Duration(lp.Config.LivePatch.Deadline))
	if errors.Is(err, livepatch.ErrNotLoaded) {
		return nil
	}
	if err != nil {
		lp.logBlockers(err)
		return err
	}
	lp.Records.AppendEvent(record.Event{Event: record.EventLiveReverted, LivePatch: p.Name})
	return nil
}

// LoadWaiting loads the live patches that wait, if the configuration enables live patches, and returns the names of
// those that are effective. It also logs the error.
func (lp *Patches) LoadWaiting(ctx context.Context, f facts.Facts, rec *record.Record) ([]string, error) {
	if !lp.Config.LivePatch.Enabled {
		return nil, nil
	}
	done, err := lp.Load(ctx, f, rec, "", false)
	if err != nil {
		lp.Log.Error("not every live patch is effective", zap.Error(err))
	}
	return done, err
}

// Collect removes the live patches that nothing needs any more, see [Patches.GC]. An error is logged.
func (lp *Patches) Collect(f facts.Facts, rec *record.Record) {
	if _, err := lp.GC(f, rec.Needed(f.Root)); err != nil {
		lp.Log.Warn("cannot remove live patches that nothing needs", zap.Error(err))
	}
}

// GC removes the stored live patches that nothing needs, and returns their names. Needed are those of the last release
// for the kernels that this host may run, those that are in the kernel, and those that the release of one of the given
// roots lists. Without a valid policy, the releases cannot be read, and none is removed.
func (lp *Patches) GC(f facts.Facts, roots []string) (removed []string, err error) {
	defer func() {
		for _, name := range removed {
			lp.Records.AppendEvent(record.Event{
				Event: record.EventCollected, LivePatch: name,
				Reason: "not for a kernel of this host, and not listed by the release of a root that is kept",
			})
		}
	}()
	ctx := context.Background()
	kept, err := lp.Store().Releases(ctx)
	if err != nil || len(kept) == 0 {
		return nil, err
	}
	loaded, err := lp.Kernel.Patches()
	if err != nil {
		return nil, err
	}
	policy, err := lp.Policy()
	if err != nil { // without a policy, no release can be read
		return nil, nil
	}
	listed := map[digest.Digest]bool{}
	for _, r := range lp.releases(ctx, policy, roots) {
		for _, p := range r.LivePatches {
			listed[p.Descriptor.Digest] = true
		}
	}
	return lp.Store().GC(ctx, func(s patches.Stored) bool {
		current := s.Evidence == kept[0] && lp.mayRunKernelOf(f, s.LivePatch)
		inKernel := slices.ContainsFunc(loaded, func(p livepatch.Patch) bool { return p.Name == s.Name && p.Is(s.Note) })
		return current || inKernel || listed[s.Descriptor.Digest]
	})
}
