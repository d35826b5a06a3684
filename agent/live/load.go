package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/livepatch"
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
				record.ErrBlocked, name, later.Name, later.Name)
		}
	}
	return take, nil
}

// Load loads the last of the stored live patches that wait, or the one that is named, and returns the names of
// those that are effective now. After every one it looks again: when the last one does not load, the one listed
// before it is loaded instead. It ends where no other could be loaded either. At boot, everything waits for it: what
// stalled before is left for later, and [livepatch] deadline is that of the whole run.
func (lp *Patches) Load(ctx context.Context, f facts.Facts, rec *record.Record, name string, atBoot bool) (done []string, err error) {
	if err := lp.HoldFatal(f, rec); err != nil {
		return nil, err
	}
	run := liveRun{facts: f, record: rec}
	if run.policy, err = lp.Policy(); err != nil {
		return nil, err
	}
	if run.known, run.stored, err = lp.storedLivePatches(ctx, nil); err != nil {
		return nil, err
	}
	if atBoot {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(lp.Config.LivePatch.Deadline))
		defer cancel()
		lp.leaveStalled(f, run.known)
	}
	var errs []error
	var took []int
	for first := true; ; first = false {
		loaded, err := lp.Kernel.Patches()
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		// What somebody else loaded comes last and is not stored.
		now := SurveyOf(f, loaded, run.known, rec.Held)[:len(run.known)]
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
		err = lp.loadOne(ctx, run, i, now[i].State == LiveEffective)
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
	record *record.Record
	policy verify.Policy
	known  []knownLivePatch
	stored []patches.Stored
}

// takeOutStacked takes a live patch that was just loaded out again when the kernel still runs another one of ours: it
// is not cumulative, and of a function that both change the kernel would run the one that came last. Whether a live
// patch is cumulative shows only then: neither its file nor, before Linux 6.11, /sys says it. The error is an
// ErrBlocked.
func (lp *Patches) takeOutStacked(ctx context.Context, run liveRun, name string) error {
	loaded, err := lp.Kernel.Patches()
	if err != nil {
		return err
	}
	below := slices.IndexFunc(run.known, func(k knownLivePatch) bool { return k.Name != name && k.isOn(loaded) })
	if below < 0 {
		return nil
	}
	other := run.known[below].Name
	err = fmt.Errorf("%w: %s is not cumulative and cannot be loaded beside %s; `updatectl livepatch revert %s` first",
		record.ErrBlocked, name, other, other)
	return errors.Join(err, lp.Kernel.Revert(context.WithoutCancel(ctx), name, time.Duration(lp.Config.LivePatch.Deadline)))
}

// leaveStalled marks what stalled since the kernel was booted as tried, so that it is left for later.
func (lp *Patches) leaveStalled(f facts.Facts, known []knownLivePatch) {
	stalled := lp.ReadNotes(f).Stalled
	for i, k := range known {
		if slices.Contains(stalled, k.Descriptor.Digest) {
			known[i].tried = true
			lp.Log.Info("a live patch that stalled is left for later", zap.String("live patch", k.Name))
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

// HoldFatal holds the live patch that was being loaded when the host went down: loaded at every boot, it would take
// the host down every time.
func (lp *Patches) HoldFatal(f facts.Facts, rec *record.Record) error {
	l := rec.Loading
	if l == nil {
		return nil
	}
	rec.Loading = nil
	if l.BootID != f.BootID {
		lp.holdLivePatch(rec, l.Name, "the host went down while it was being loaded")
		lp.Log.Error("a live patch is not loaded any more: the host went down with it", zap.String("live patch", l.Name))
	}
	return lp.Records.Write(rec)
}

// holdLivePatch keeps a live patch from being loaded automatically.
func (lp *Patches) holdLivePatch(rec *record.Record, name, reason string) {
	if rec.Held == nil {
		rec.Held = map[string]record.Held{}
	}
	rec.Held[name] = record.Held{Reason: reason, At: lp.Now().UTC()}
	lp.Records.Tell(record.Event{Event: record.EventLiveHeld, LivePatch: name, Reason: reason})
}

// loadOne verifies a stored live patch again and loads it; wasEffective is whether the kernel runs it already. The
// record names it for as long as that takes.
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
		lp.Records.Tell(record.Event{Event: record.EventLiveFailed, LivePatch: s.Name, Reason: err.Error(), Kernel: f.KernelRelease})
		lp.logBlockers(err)
		return withRestartAdvice(err, f)
	}
	lp.Records.Tell(record.Event{Event: record.EventLiveEffective, LivePatch: s.Name, Vouchers: l.Vouchers, Kernel: f.KernelRelease})
	lp.Log.Info("the live patch is effective", zap.String("live patch", s.Name))
	lp.cleanReplaced(run.stored, s.Name)
	return nil
}

// withRestartAdvice adds to the error of a stalled transition that a soft reboot would let it through, where it
// would, and whether this host can have one.
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

// logBlockers writes the stacks of the tasks that block, which are too long for an error.
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

// cleanReplaced removes the modules of ours that a cumulative live patch has replaced: the kernel has switched them
// off and leaves them in memory.
func (lp *Patches) cleanReplaced(stored []patches.Stored, by string) {
	for _, s := range stored {
		if s.Name == by {
			continue
		}
		cleaned, err := lp.Kernel.Clean(s.Name)
		if err != nil {
			lp.Log.Warn("cannot take out a live patch that was replaced", zap.Error(err))
		} else if cleaned {
			lp.Records.Tell(record.Event{Event: record.EventLiveReplaced, LivePatch: s.Name, Reason: "by " + by})
		}
	}
}

// Revert records that a live patch is not wanted before it takes it out. One that is not loaded is only held.
func (lp *Patches) Revert(ctx context.Context, p LivePatch, rec *record.Record) error {
	lp.holdLivePatch(rec, p.Name, "taken back by the operator")
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
	lp.Records.Tell(record.Event{Event: record.EventLiveReverted, LivePatch: p.Name})
	return nil
}

// LoadWaiting loads what waits, if the configuration enables live patches, and logs what does not load.
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

// Collect removes the live patches that nothing needs since the last release was stored. It leaves the roots alone.
func (lp *Patches) Collect(f facts.Facts, rec *record.Record) {
	if _, err := lp.GC(f, rec.Needed(f.Root)); err != nil {
		lp.Log.Warn("cannot remove live patches that nothing needs", zap.Error(err))
	}
}

// GC removes the live patches that nothing needs, and returns their names: kept are those of the last release for the
// kernels that the host may run, those that are in the kernel, and those that the release of a kept root lists.
func (lp *Patches) GC(f facts.Facts, roots []string) (removed []string, err error) {
	defer func() {
		for _, name := range removed {
			lp.Records.Tell(record.Event{
				Event: record.EventCollected, LivePatch: name,
				Reason: "neither for a kernel of this host nor listed by the release of a root that is kept",
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
