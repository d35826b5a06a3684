package agent

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
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
	// Switching reports that the host is on its way into Root; otherwise it runs there already.
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
	// to let one through. Loaded names those that became effective; LivePatches lists all.
	Level       level.Level      `json:"level,omitempty"`
	Restarting  bool             `json:"restarting,omitempty"`
	Loaded      []string         `json:"loaded_live_patches,omitempty"`
	LivePatches []live.LivePatch `json:"live_patches,omitempty"`
}

// Apply brings the host to the published image: fetch, verify, stage, decide, switch. It returns when the soft reboot is
// queued, or the full one, which lands on the host root; [Agent.Confirm] continues in the new root.
func (a *Agent) Apply(ctx context.Context, o ApplyOptions) (Applied, error) {
	if err := a.RequireRunning(); err != nil {
		return Applied{}, err
	}
	s, err := a.begin(ctx, "apply", o.Wait)
	defer s.close()
	if errors.Is(err, transition.ErrSwitch) {
		err = s.Transition.BackOrFullReboot(ctx, s.facts, s.rec, err)
	}
	if err == nil {
		err = s.settleFirst(ctx)
	}
	if err != nil {
		return Applied{}, err
	}
	off, done, fetchErr := s.fetch(ctx, o)
	stay, err := s.mustStay(o)
	fetchErr = errors.Join(fetchErr, err)
	switch d := decideApply(s.facts, s.rec, offered(off, done, fetchErr), o, stay); d.do {
	case refuse:
		return done, d.err
	case stayHere:
		return Applied{Root: s.facts.Root, From: s.facts.Root, Skipped: d.why}, nil
	case skip:
		done.Skipped = d.why
		return done, nil
	case liveOnly:
		return done, s.applyLive(ctx, off, &done, o.Level)
	case resume:
		a.Log.Warn("the host goes on to its last good root", zap.String("reason", d.why))
		return s.applyResume(ctx, off, done, fetchErr)
	}
	root, err := s.prepare(ctx, off, &done, o.Level)
	if err != nil && stranded(s.facts, s.rec, o) { // it is no reason to leave the services of the last good root down
		a.Log.Warn("the published image cannot be switched to; the host goes on to its last good root", zap.Error(err))
		return s.applyResume(ctx, off, done, err)
	}
	if err != nil {
		return done, err
	}
	return done, s.switchTo(ctx, off, &done, root)
}

// prepare stages the published image, decides the level of the switch to it, and makes its root ready.
func (s *session) prepare(ctx context.Context, off *offer.Published, done *Applied, wish level.Level) (store.Root, error) {
	root, err := s.stage(ctx, off, done)
	if err != nil {
		return root, err
	}
	decision, err := s.decideLevel(ctx, root, wish)
	done.Decision = &decision
	if err != nil {
		return root, err
	}
	return root, s.Roots.Rehearse(root, s.facts, s.rec)
}

// switchTo asks for the switch to a root that is ready.
func (s *session) switchTo(ctx context.Context, off *offer.Published, done *Applied, root store.Root) error {
	if done.Decision.Level != level.Full { // a full reboot ends the kernel that they are for
		s.loadBeforeSwitch(ctx, done)
	}
	sw := record.Switch{Verb: forwardVerb(s.facts, s.rec, root.ID), Version: done.Version}
	sw.Level = done.Decision.Level
	sw.Before = s.Trial.Observe(ctx, s.facts, sw.Verb)
	done.Switching = true
	return s.Transition.Start(ctx, s.rec, s.facts, sw, root.ID, leftForOlder(off, s))
}

// leftForOlder returns why the running root is not taken again by an unattended apply, which would undo tonight what the
// operator does now; nil when the operator does not go back.
func leftForOlder(off *offer.Published, s *session) *record.Bad {
	if !off.OlderThan(s.rec, s.facts.Root) {
		return nil
	}
	return &record.Bad{Reason: "left by the operator for version " + off.Mark.Version}
}

// applyResume goes on to the last good root, with the live patches of what was published, when that is all that was;
// failed is why what was published cannot be had.
func (s *session) applyResume(ctx context.Context, off *offer.Published, done Applied, failed error) (Applied, error) {
	if failed == nil && off.Image == nil {
		if err := s.Live.KeepEnabled(ctx, off, s.facts); err != nil {
			return done, err
		}
		s.loadBeforeSwitch(ctx, &done)
	}
	if _, err := s.Roots.DecideResume(s.facts); err != nil {
		return done, err
	}
	done = Applied{Root: s.rec.LastGood(), From: s.facts.Root, Switching: true, Loaded: done.Loaded, Warnings: done.Warnings}
	var err error
	done.Version, err = s.resumeRoot(ctx, s.Trial.Observe(ctx, s.facts, record.VerbResume))
	return done, err
}

// settleFirst refuses a host that no image can help, and confirms the running root when it is still being tried: a root
// that may yet be rolled back is no place to start from.
func (s *session) settleFirst(ctx context.Context) error {
	if err := checkHost(s.Machine.Running, s.facts); err != nil {
		return err
	}
	if s.rec.Phase == record.PhaseTrying {
		err := s.Trial.Settle(ctx, s.facts, s.rec)
		if errors.Is(err, record.ErrUnhealthy) { // confirm rolls back; one that was ended, or has failed, begins anew
			err = errors.Join(err, s.Machine.Systemd.BeginConfirm(ctx))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrTrying, err)
		}
	}
	return nil
}

// mustStay reports whether an unattended apply has to leave the host on its host root, as the kernel's command line can say.
func (s *session) mustStay(o ApplyOptions) (bool, error) {
	if !o.Unattended || !onHostRoot(s.facts, s.rec) {
		return false, nil
	}
	return s.Machine.Kernel.MustStay()
}

// onHostRoot reports whether a full reboot left the host on its host root, while an image root is the last good one.
func onHostRoot(f facts.Facts, rec *record.Record) bool {
	return f.Root == switcher.HostRoot && rec.LastGood() != switcher.HostRoot
}

// stranded reports whether an unattended apply has to bring the host from its host root to its last good root when there
// is nothing better. A root that a full reboot left too often is not gone to again.
func stranded(f facts.Facts, rec *record.Record, o ApplyOptions) bool {
	return o.Unattended && onHostRoot(f, rec) && rec.ResumeAttempts(rec.LastGood()) < record.MaxAttempts
}

// forwardVerb returns the verb for going to a root: after a full reboot, going on to the root that ran before it takes that
// root's /etc as it is.
func forwardVerb(f facts.Facts, rec *record.Record, id string) string {
	if f.Root == switcher.HostRoot && rec.LastGood() == id {
		return record.VerbResume
	}
	return record.VerbApply
}

// decideLevel chooses the level for a staged root, with the fixes that the running kernel does not have.
func (s *session) decideLevel(ctx context.Context, root store.Root, wish level.Level) (level.Decision, error) {
	open, err := s.Live.OpenFixes(ctx, s.facts, s.rec, root.ID)
	if err != nil {
		return level.Decision{}, err
	}
	return s.Roots.Decide(root, s.facts, s.rec, open, wish)
}

// offering is what apply decides by of what was published.
type offering struct {
	// err is why nothing could be had; the rest is empty then.
	err error
	// root is the root to run, image whether an image of it is published, and not live patches alone.
	root  string
	image bool
}

func offered(off *offer.Published, done Applied, err error) offering {
	if err != nil {
		return offering{err: err}
	}
	return offering{root: done.Root, image: off.Image != nil}
}

// act is what apply does next.
type act string

const (
	refuse   act = "refuse"    // end with an error
	stayHere act = "stay"      // an unattended run leaves the host on its host root
	skip     act = "skip"      // an unattended run passes over what is published
	liveOnly act = "live only" // the root runs already: only live patches change
	resume   act = "resume"    // go on to the last good root, as it was left
	goThere  act = "switch"    // stage the image and switch to it
)

// applyDecision is what apply does next, and why; err is what it ends with.
type applyDecision struct {
	do  act
	why string
	err error
}

// decideApply decides what apply does on a host in this state with what is published. Stay reports that the kernel was
// started to stay on the host root.
func decideApply(f facts.Facts, rec *record.Record, off offering, o ApplyOptions, stay bool) applyDecision {
	last := rec.LastGood()
	resumes := rec.ResumeAttempts(last)
	stranded := stranded(f, rec, o)
	bad, isBad := rec.Bad[off.root]
	failed := rec.Failed[off.root]
	switch {
	case stay:
		return applyDecision{do: stayHere, why: "the kernel was started with updatectl.resume=0, to stay on the host root; " +
			"`updatectl apply` or `updatectl rollback` continues"}
	case off.err != nil && stranded:
		return applyDecision{do: resume, why: "nothing newer can be had: " + off.err.Error()}
	case off.err != nil:
		return applyDecision{do: refuse, err: off.err}
	case off.root == f.Root:
		return applyDecision{do: liveOnly}
	case !off.image:
		return applyDecision{do: resume, why: "a full reboot left the host on its host root"}
	case isBad && !o.Retry && stranded:
		return applyDecision{do: resume, why: "the published image was given up " + bad.WhenAndWhy()}
	case isBad && !o.Retry && o.Unattended:
		return applyDecision{do: skip, why: "given up " + bad.WhenAndWhy()}
	case isBad && !o.Retry:
		return applyDecision{do: refuse, err: bad.Err()}
	case o.Unattended && off.root == last && resumes >= record.MaxAttempts:
		return applyDecision{do: skip, why: fmt.Sprintf("%d attempts to resume it after a full reboot failed", resumes)}
	case stranded && failed.Times >= record.MaxAttempts:
		return applyDecision{do: resume, why: fmt.Sprintf("%d switches to the published image failed, the last one because %s",
			failed.Times, failed.Reason)}
	case o.Unattended && failed.Times >= record.MaxAttempts:
		return applyDecision{do: skip, why: fmt.Sprintf("%d switches to it failed, the last one because %s; "+
			"`updatectl apply` tries again", failed.Times, failed.Reason)}
	}
	return applyDecision{do: goThere}
}
