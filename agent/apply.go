package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// ApplyOptions are the operator's wishes for one apply.
type ApplyOptions struct {
	// From overrides the configured source.
	From string
	// Level overrides the configured level; "" keeps it.
	Level level.Level
	// Wait waits for another updatectl instead of giving up.
	Wait bool
	// Retry takes an image that was given up before.
	Retry bool
	// AllowDowngrade takes what is older than what was accepted before; it still must be signed and not expired.
	AllowDowngrade bool
	// Unattended passes over an image that was given up before, as if there were none.
	Unattended bool
}

// Applied is what apply did.
type Applied struct {
	// Switching tells that the host is on its way into Root; otherwise it runs there already.
	Switching bool             `json:"switching"`
	Root      string           `json:"root"`
	From      string           `json:"from"`
	Reference string           `json:"reference,omitempty"`
	Version   string           `json:"version,omitempty"`
	Vouchers  []verify.Voucher `json:"vouchers,omitempty"`
	Decision  *level.Decision  `json:"decision,omitempty"`
	// NewBytes is what the root needed on disk beyond what was there.
	NewBytes int64 `json:"new_bytes,omitempty"`
	// Skipped is why an unattended run left an image alone; Bad why apply would not take what was staged.
	Skipped string `json:"skipped,omitempty"`
	Bad     *Bad   `json:"bad,omitempty"`
	// Release is the release that lists the image, nil for an image on its own.
	Release  *Release `json:"release,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Level is live when only live patches were loaded, and soft with Restarting, when userspace restarts in the same root
	// to let one through. Loaded names those that became effective, LivePatches tells of all.
	Level       level.Level `json:"level,omitempty"`
	Restarting  bool        `json:"restarting,omitempty"`
	Loaded      []string    `json:"loaded_live_patches,omitempty"`
	LivePatches []LivePatch `json:"live_patches,omitempty"`
}

// Apply brings the host to the published image: fetch, verify, stage, decide, switch. It returns when the soft reboot
// is queued, or the full one, which lands on the mutable host; [Agent.Confirm] goes on in the new root.
func (a *Agent) Apply(ctx context.Context, o ApplyOptions) (Applied, error) {
	if err := a.requireLive(); err != nil {
		return Applied{}, err
	}
	unlock, err := a.lock(ctx, "apply", o.Wait)
	if err != nil {
		return Applied{}, err
	}
	defer unlock()
	w, err := a.offered(ctx, o)
	if o.Unattended && (err == nil || w.asked) && w.onHost() {
		stay, serr := a.Machine.MustStay()
		if stay {
			return Applied{Root: w.facts.Root, From: w.facts.Root, Skipped: "the kernel was booted with updatectl.resume=0, to stay on the mutable host; `updatectl apply` or `updatectl rollback` goes on"}, nil
		}
		err = errors.Join(err, serr)
	}
	if err != nil && w.asked && o.Unattended && w.stranded() {
		a.Log.Warn("nothing newer can be had; the host goes on from where a boot of the kernel found it", zap.Error(err))
		return a.resume(ctx, w)
	}
	if err != nil {
		return w.done, err
	}
	if w.done.Root == w.facts.Root {
		err := a.applyLive(ctx, w, o.Level)
		return w.done, err
	}
	if w.offer.image == nil { // a boot of the kernel landed on the mutable host
		if err := a.keepEnabledLivePatches(ctx, w.offer, w.facts); err != nil {
			return w.done, err
		}
		a.loadBeforeSwitch(ctx, w)
		return a.resume(ctx, w)
	}
	if bad, isBad := w.rec.Bad[w.done.Root]; isBad && !o.Retry {
		if w.done.Skipped = "given up " + bad.when(); o.Unattended && w.stranded() {
			return a.resume(ctx, w)
		}
		if o.Unattended {
			return w.done, nil
		}
		return w.done, bad.givenUp()
	}
	if o.Unattended && w.done.Root == w.rec.good() && w.rec.resumed(w.done.Root) >= maxAttempts {
		w.done.Skipped = fmt.Sprintf("resumed %d times after a boot of the kernel and did not become good", w.rec.resumed(w.done.Root))
		return w.done, nil
	}
	if failed := w.rec.Failed[w.done.Root]; o.Unattended && failed.Times >= maxAttempts {
		w.done.Skipped = fmt.Sprintf("%d switches to it failed, the last one because %s; `updatectl apply` tries again", failed.Times, failed.Reason)
		return w.done, nil
	}
	root, err := a.stage(ctx, w)
	if err != nil {
		return w.done, err
	}
	decision, err := a.decideStaged(ctx, w.store, root, w.facts, w.rec, o.Level)
	w.done.Decision = &decision
	if err != nil {
		return w.done, err
	}
	if err := a.rehearse(w.store, root, w.facts, w.rec); err != nil {
		return w.done, err
	}
	if decision.Level != level.Full { // the kernel that they are for ends with it
		a.loadBeforeSwitch(ctx, w)
	}
	w.done.Switching = true
	if w.offer.olderThan(w.rec, w.facts.Root) {
		w.rec.leave(w.facts.Root, w.offer.mark.Version, a.Now())
	}
	s := Switch{Verb: forward(w.facts, w.rec, root.ID), Version: w.done.Version}
	s.Level = decision.Level
	s.Before = a.observe(ctx, w.facts, s.Verb)
	return w.done, a.switchTo(ctx, w.rec, w.facts, s, root.ID)
}

// decideStaged chooses the level for a staged root, with the fixes that the running kernel does not have.
func (a *Agent) decideStaged(ctx context.Context, st *store.Store, root store.Root, f facts.Facts, rec *Record, wish level.Level) (level.Decision, error) {
	open, err := a.openFixes(ctx, st, f, rec, root.ID)
	if err != nil {
		return level.Decision{}, err
	}
	return a.decide(st, root, f, rec, open, wish)
}

// stranded tells that the host is there and that it is worth trying to go on to the good root.
func (w *work) stranded() bool {
	return w.onHost() && w.rec.resumed(w.rec.good()) < maxAttempts
}

// onHost tells that a boot of the kernel landed on the mutable host while an image root is the good one.
func (w *work) onHost() bool {
	return w.rec != nil && w.facts.Root == switcher.HostRoot && w.rec.good() != switcher.HostRoot
}

// resume goes on to the last good root as it was left.
func (a *Agent) resume(ctx context.Context, w *work) (Applied, error) {
	id := w.rec.good()
	if _, err := a.decideResume(w.facts); err != nil {
		return w.done, err
	}
	done := Applied{Root: id, From: w.facts.Root, Switching: true, Loaded: w.done.Loaded, Warnings: w.done.Warnings}
	version, err := a.ready(w.store, id, w.facts, w.rec)
	if err != nil {
		return done, err
	}
	done.Version = cmp.Or(w.rec.Accepted[id].Version, version)
	s := Switch{Verb: verbResume, Version: done.Version, Before: a.observe(ctx, w.facts, verbResume)}
	return done, a.switchTo(ctx, w.rec, w.facts, s, id)
}

// forward is the verb for going to a root: a boot of the kernel lands on the mutable host, and going on to the root that
// ran before it takes that root's /etc as it is.
func forward(f facts.Facts, rec *Record, id string) string {
	if f.Root == switcher.HostRoot && rec.good() == id {
		return verbResume
	}
	return verbApply
}

// Stage brings the published image onto the disk and leaves it there.
func (a *Agent) Stage(ctx context.Context, o ApplyOptions) (Applied, error) {
	unlock, err := a.lock(ctx, "stage", o.Wait)
	if err != nil {
		return Applied{}, err
	}
	defer unlock()
	w, err := a.offered(ctx, o)
	if err != nil {
		return w.done, err
	}
	if w.done.Root != w.facts.Root {
		_, err = a.stage(ctx, w)
		if bad, isBad := w.rec.Bad[w.done.Root]; isBad && w.offer.image != nil {
			w.done.Bad = &bad
		}
	}
	if err == nil && w.offer.release != nil {
		w.done.LivePatches, err = a.survey(ctx, w.facts, w.rec)
	}
	return w.done, err
}

// work is what apply and stage hold in their hands: the host as it is, what is published for it, and the answer so far.
type work struct {
	store *store.Store
	facts facts.Facts
	rec   *Record
	offer *published
	// asked: the host itself could take an image, and the source was asked for one.
	asked bool
	done  Applied
}

// offered finds out what is published for this host and accepts it into the record; what is older than the record, only
// if it runs: otherwise that waits until it is on the disk. A root that is not confirmed yet is no place to go on from:
// it may have to be left backwards.
func (a *Agent) offered(ctx context.Context, o ApplyOptions) (*work, error) {
	w := &work{}
	var err error
	if w.store, w.facts, w.rec, err = a.begin(ctx); err != nil {
		return w, err
	}
	if err := a.able(w.facts); err != nil {
		return w, err
	}
	if w.rec.Phase == PhaseTrying {
		if err := a.settle(ctx, w.facts, w.rec); err != nil {
			return w, fmt.Errorf("%w: %w", ErrTrying, err)
		}
	}
	w.asked = true
	if w.offer, err = a.fetch(ctx, o.From, w.facts, w.rec, o.AllowDowngrade); err != nil {
		return w, err
	}
	w.done = applied(w.offer, w.facts, w.rec)
	runs := w.done.Root == w.facts.Root
	if w.offer.waived == nil || runs || w.offer.image == nil {
		err = a.accept(w.offer, w.rec)
	}
	if err != nil || !runs {
		return w, err
	}
	return w, errors.Join(a.renew(w.store, w.offer), a.keepEnabledLivePatches(ctx, w.offer, w.facts))
}

// begin is the start of every command that changes something: leftovers are swept and the record is reconciled.
func (a *Agent) begin(ctx context.Context) (*store.Store, facts.Facts, *Record, error) {
	facts, rec, err := a.look(ctx)
	if err != nil {
		return nil, facts, nil, err
	}
	st, err := a.openStore()
	if err != nil {
		return nil, facts, nil, err
	}
	if err := st.Sweep(); err != nil {
		return nil, facts, nil, err
	}
	if a.Machine.Live() {
		err = a.disarmLeftover(ctx, facts, rec)
		if !errors.Is(err, errGuardLeaves) {
			err = errors.Join(err, a.reconcile(ctx, facts, rec))
		}
	}
	if err == nil && rec.Phase != PhaseTrying { // then a guard may be writing, and it takes no lock
		err = a.sweep()
	}
	return st, facts, rec, err
}

// able refuses a host that no image can help, before anything is fetched for it.
func (a *Agent) able(f facts.Facts) error {
	if c := level.CheckHost(f); a.Machine.Live() && c.Verdict == level.VerdictRefuse {
		return fmt.Errorf("%w: %s", ErrHostTooOld, c.Reason)
	}
	return nil
}

// rehearse does beforehand what could fail when services have stopped: the graft, the joined root, the merge of /etc.
func (a *Agent) rehearse(st *store.Store, root store.Root, f facts.Facts, rec *Record) error {
	if err := a.graft(st, root, f, rec); err != nil {
		return err
	}
	return a.withEtc(st, root, f, rec, func(in etc.Inputs) error {
		_, err := etc.Plan(in)
		return err
	})
}

// observe notes what the target of a switch is compared with. The mutable host's units are others than those of a root that
// was good before it. What is not up yet may fail yet; systemd says that it starts, too, when all that it waits for is the
// agent's own unit.
func (a *Agent) observe(ctx context.Context, f facts.Facts, verb string) health.Before {
	gate := a.gate()
	before := health.Observe(ctx, gate)
	starting := f.State == "starting" || f.State == "initializing"
	before.Unknown = verb == verbResume || verb == verbRollback && f.Root == switcher.HostRoot || starting && gate.Busy(ctx)
	return before
}

// askTime is how long systemd and logind may take to accept a reboot. Neither needs a second.
const askTime = time.Minute

// switchTo writes down what is about to happen and asks for it. If the request is refused, the record and the machine
// are as before.
func (a *Agent) switchTo(ctx context.Context, rec *Record, f facts.Facts, s Switch, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The reboot that is asked for here ends this very process. From here on, SIGTERM must not undo what has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	before, err := a.readRecord()
	if err != nil {
		return err
	}
	stamp := readStamp(a.path(stampFile))
	a.describe(&s, f, id)
	if err := removeStamp(a.path(verdictFile)); err != nil { // it is of another switch, perhaps to the same root
		return err
	}
	if err := rec.setOut(s); err != nil {
		return err
	}
	a.reserve()
	err = a.announce(rec)
	if err == nil {
		err = a.ask(ctx, rec.Switch)
	}
	if err != nil {
		*rec = *before
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime) // what was asked may have used up the other
		defer cancel()
		err = errors.Join(err, a.Machine.PID1.ReleaseArmUnit(ctx), a.writeRecord(rec)) // the guard sees the record and ends
		if rec.Phase == PhaseTrying && stamp != nil {                                  // by which the root is judged
			err = errors.Join(err, a.writeStamp(*stamp))
		}
		if errors.Is(err, pid1.ErrInhibited) {
			err = fmt.Errorf("%w: %w", ErrBlocked, err)
		}
		return err
	}
	a.tellSwitching(rec, f)
	return nil
}

// describe completes a switch from the root that runs to another one.
func (a *Agent) describe(s *Switch, f facts.Facts, id string) {
	s.Expectation = level.Expectation{
		From: f.Root, Target: id, BootID: f.BootID, SoftReboots: f.SoftReboots, Level: cmp.Or(s.Level, level.Soft),
	}
	s.At = a.Now().UTC()
	s.Deadline = s.At.Add(time.Duration(a.Config.Switch.ShutdownDeadline + a.Config.Health.Deadline))
}

// announce writes the record of a switch before anything is done for it. The userspace that comes next is not the first one
// of this boot, though there may have been nothing to resume when that started.
func (a *Agent) announce(rec *Record) error {
	if _, err := a.firstStart(); err != nil {
		return err
	}
	if err := removeStamp(a.path(stampFile)); err != nil {
		return err
	}
	if rec.Switch.Level == level.Full {
		if err := a.writeStamp(level.Stamp{Target: rec.Switch.Target}); err != nil {
			return err
		}
	}
	return a.writeSwitch(rec)
}

// writeSwitch writes the record of a switch. One that brings a new root has to find room for it, in both roots.
func (a *Agent) writeSwitch(rec *Record) error {
	if rec.Switch.Verb == verbApply {
		return a.writeRecord(rec)
	}
	return a.writeOutcome(rec)
}

// ask asks for the reboot. Nothing is armed for a full one: it lands on the mutable host, which goes on from there. A soft
// one has the guard awake and the arming unit held.
func (a *Agent) ask(ctx context.Context, s *Switch) error {
	if s.Level == level.Full {
		if err := assembly.Disarm(); err != nil {
			return err
		}
		return a.Machine.PID1.FullReboot(ctx)
	}
	// The guard that watched the way here watches the way back: a new one would be started from the root that is bad.
	if s.Verb != verbBack {
		if err := a.Machine.PID1.StartGuard(ctx); err != nil {
			return err
		}
	}
	if err := a.Machine.PID1.HoldArmUnit(ctx); err != nil {
		return err
	}
	if s.Verb == verbBack {
		return a.Machine.PID1.SoftRebootNow(ctx)
	}
	return a.Machine.PID1.SoftReboot(ctx)
}

func (a *Agent) tellSwitching(rec *Record, f facts.Facts) {
	s := rec.Switch
	a.tell(s.event("switching", "").on(f))
	a.Log.Info("switching", zap.String("from", f.Root), zap.String("to", s.Target), zap.String("verb", s.Verb), zap.String("level", string(s.Level)))
}
