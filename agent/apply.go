package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
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
	Skipped string      `json:"skipped,omitempty"`
	Bad     *record.Bad `json:"bad,omitempty"`
	// Release is the release that lists the image, nil for an image on its own.
	Release  *offer.Release `json:"release,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
	// Level is live when only live patches were loaded, and soft with Restarting, when userspace restarts in the same root
	// to let one through. Loaded names those that became effective, LivePatches tells of all.
	Level       level.Level      `json:"level,omitempty"`
	Restarting  bool             `json:"restarting,omitempty"`
	Loaded      []string         `json:"loaded_live_patches,omitempty"`
	LivePatches []live.LivePatch `json:"live_patches,omitempty"`
}

// Apply brings the host to the published image: fetch, verify, stage, decide, switch. It returns when the soft reboot
// is queued, or the full one, which lands on the mutable host; [Agent.Confirm] goes on in the new root.
func (a *Agent) Apply(ctx context.Context, o ApplyOptions) (Applied, error) {
	if err := a.requireLive(); err != nil {
		return Applied{}, err
	}
	unlock, err := a.Lock(ctx, "apply", o.Wait)
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
	if w.offer.Image == nil { // a boot of the kernel landed on the mutable host
		if err := a.Live.KeepEnabled(ctx, w.offer, w.facts); err != nil {
			return w.done, err
		}
		a.loadBeforeSwitch(ctx, w)
		return a.resume(ctx, w)
	}
	if bad, isBad := w.rec.Bad[w.done.Root]; isBad && !o.Retry {
		if w.done.Skipped = "given up " + bad.WhenAndWhy(); o.Unattended && w.stranded() {
			return a.resume(ctx, w)
		}
		if o.Unattended {
			return w.done, nil
		}
		return w.done, bad.Err()
	}
	if o.Unattended && w.done.Root == w.rec.LastGood() && w.rec.ResumeAttempts(w.done.Root) >= record.MaxAttempts {
		w.done.Skipped = fmt.Sprintf("resumed %d times after a boot of the kernel and did not become good", w.rec.ResumeAttempts(w.done.Root))
		return w.done, nil
	}
	if failed := w.rec.Failed[w.done.Root]; o.Unattended && failed.Times >= record.MaxAttempts {
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
	if err := a.Roots.Rehearse(w.store, root, w.facts, w.rec); err != nil {
		return w.done, err
	}
	if decision.Level != level.Full { // the kernel that they are for ends with it
		a.loadBeforeSwitch(ctx, w)
	}
	w.done.Switching = true
	if w.offer.OlderThan(w.rec, w.facts.Root) {
		w.rec.LeaveForOlder(w.facts.Root, w.offer.Mark.Version, a.Now())
	}
	s := record.Switch{Verb: forward(w.facts, w.rec, root.ID), Version: w.done.Version}
	s.Level = decision.Level
	s.Before = a.observe(ctx, w.facts, s.Verb)
	return w.done, a.Transition.Start(ctx, w.rec, w.facts, s, root.ID)
}

// decideStaged chooses the level for a staged root, with the fixes that the running kernel does not have.
func (a *Agent) decideStaged(ctx context.Context, st *store.Store, root store.Root, f facts.Facts, rec *record.Record, wish level.Level) (level.Decision, error) {
	open, err := a.Live.OpenFixes(ctx, st, f, rec, root.ID)
	if err != nil {
		return level.Decision{}, err
	}
	return a.Roots.Decide(st, root, f, rec, open, wish)
}

// resume goes on to the last good root as it was left.
func (a *Agent) resume(ctx context.Context, w *work) (Applied, error) {
	id := w.rec.LastGood()
	if _, err := a.Roots.DecideResume(w.facts); err != nil {
		return w.done, err
	}
	done := Applied{Root: id, From: w.facts.Root, Switching: true, Loaded: w.done.Loaded, Warnings: w.done.Warnings}
	version, err := a.Roots.MakeReady(w.store, id, w.facts, w.rec)
	if err != nil {
		return done, err
	}
	done.Version = cmp.Or(w.rec.Accepted[id].Version, version)
	s := record.Switch{Verb: record.VerbResume, Version: done.Version, Before: a.observe(ctx, w.facts, record.VerbResume)}
	return done, a.Transition.Start(ctx, w.rec, w.facts, s, id)
}

// forward is the verb for going to a root: a boot of the kernel lands on the mutable host, and going on to the root that
// ran before it takes that root's /etc as it is.
func forward(f facts.Facts, rec *record.Record, id string) string {
	if f.Root == switcher.HostRoot && rec.LastGood() == id {
		return record.VerbResume
	}
	return record.VerbApply
}

// observe notes what the target of a switch is compared with. The mutable host's units are others than those of a root that
// was good before it. What is not up yet may fail yet; systemd says that it starts, too, when all that it waits for is the
// agent's own unit.
func (a *Agent) observe(ctx context.Context, f facts.Facts, verb string) health.Before {
	gate := a.gate()
	before := health.Observe(ctx, gate)
	starting := f.State == "starting" || f.State == "initializing"
	before.Unknown = verb == record.VerbResume || verb == record.VerbRollback && f.Root == switcher.HostRoot || starting && gate.Busy(ctx)
	return before
}
