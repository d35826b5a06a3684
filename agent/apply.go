package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/decide"
	"github.com/updatectl/updatectl/agent/hook"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/verify"
)

// ApplyOptions is what the operator asks of one apply.
type ApplyOptions struct {
	// From overrides the configured source.
	From string
	// Level overrides the configured level; "" keeps it.
	Level level.Level
	// Wait waits until another updatectl is done, instead of failing.
	Wait bool
	// Retry accepts an image that was given up before.
	Retry bool
	// AllowDowngrade accepts a version older than the last accepted one. It must still be signed, and not expired.
	AllowDowngrade bool
	// Accept lists the kinds of losses that the operator accepts, for this switch and later ones.
	Accept []record.LossKind
	// Volatile has the root run on a throw-away copy of the state, which the next switch drops.
	Volatile bool
	// Unattended is set by the timer: an image that was given up is skipped, and is no error.
	Unattended bool
	// IgnoreRollout takes a release before the turn of this host, and one whose rollout is paused or stopped.
	IgnoreRollout bool
}

// wish is the part of what the operator asks that apply decides by.
func (o ApplyOptions) wish() decide.Wish {
	return decide.Wish{Unattended: o.Unattended, Retry: o.Retry}
}

// Applied is what apply did.
type Applied struct {
	// Switching reports whether the host is on its way into Root; if not, Root runs already.
	Switching bool             `json:"switching"`
	Root      string           `json:"root"`
	From      string           `json:"from"`
	Reference string           `json:"reference,omitempty"`
	Version   string           `json:"version,omitempty"`
	Vouchers  []verify.Voucher `json:"vouchers,omitempty"`
	Decision  *level.Decision  `json:"decision,omitempty"`
	// NewBytes is how much disk space staging the root took, in bytes.
	NewBytes int64 `json:"new_bytes,omitempty"`
	// Volatile is whether Root runs on a throw-away copy of the state, and Drops whether the copy that From ran on goes.
	Volatile bool `json:"volatile,omitempty"`
	Drops    bool `json:"drops_volatile,omitempty"`
	// Skipped is why an unattended apply did not switch; Bad is why apply would refuse the staged image.
	Skipped string      `json:"skipped,omitempty"`
	Bad     *record.Bad `json:"bad,omitempty"`
	// Release is the release that lists the image, nil for an image without a release.
	Release  *offer.Release `json:"release,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
	// Level is live when only live patches were loaded. It is soft, with Restarting, when userspace restarts in the same
	// root to complete one that stalled. Loaded names the live patches that became effective; LivePatches lists all of
	// them.
	Level       level.Level      `json:"level,omitempty"`
	Restarting  bool             `json:"restarting,omitempty"`
	Loaded      []string         `json:"loaded_live_patches,omitempty"`
	LivePatches []live.LivePatch `json:"live_patches,omitempty"`
	// LeftInEtc are the paths in /etc, apart from users and groups, that changed in the root that a rollback leaves: they
	// stay behind in it.
	LeftInEtc []string `json:"left_in_etc,omitempty"`
}

// Apply brings the host to the published image: fetch, verify, stage, decide, switch. It returns when systemd has
// accepted the soft reboot, or the full reboot, which lands on the host root. [Agent.Confirm] goes on in the new root.
func (a *Agent) Apply(ctx context.Context, o ApplyOptions) (Applied, error) {
	if err := a.RequireRunning(); err != nil {
		return Applied{}, err
	}
	s, err := beginSettled(ctx, a, "apply", o.Wait)
	if err != nil {
		return Applied{}, err
	}
	defer s.close()
	s.rec.Accepting = o.Accept
	off, done, fetchErr := s.fetch(ctx, o)
	noteStep(s, "find")
	stay, err := s.mustStay(o)
	fetchErr = errors.Join(fetchErr, mayTake(ctx, s, off, done, o), err)
	done.Volatile = o.Volatile
	d := decide.Apply(s.facts, s.rec, offered(off, done, fetchErr), o.wish(), stay)
	if o.Volatile && (d.Do == decide.LiveOnly || d.Do == decide.Resume) {
		return done, volatile.Nothing()
	}
	switch d.Do {
	case decide.Refuse:
		return done, d.Err
	case decide.Stay:
		return Applied{Root: s.facts.Root, From: s.facts.Root, Skipped: d.Why}, nil
	case decide.Skip:
		done.Skipped = d.Why
		return done, nil
	case decide.LiveOnly:
		err = s.applyLive(ctx, off, &done, o.Level)
		return done, err
	case decide.Resume:
		a.Log.Warn("resuming the last good root", zap.String("reason", d.Why))
		return s.applyResume(ctx, off, done, fetchErr)
	}
	root, err := s.prepare(ctx, off, &done, o.Level)
	if err == nil {
		err = beginTurn(ctx, s, &done)
	}
	if err != nil && decide.Stranded(s.facts, s.rec, o.wish()) { // no reason to leave the services down
		a.Log.Warn("the published image cannot be switched to; the host goes on to its last good root", zap.Error(err))
		return s.applyResume(ctx, off, done, err)
	}
	if err != nil {
		return done, err
	}
	err = s.switchTo(ctx, &done, root, false, decide.LeftForOlder(off.OlderThan(s.rec, s.facts.Root), off.Mark.Version))
	return done, err
}

// prepare stages the published image, decides the level of the switch to it, and makes its root ready.
func (s *session) prepare(ctx context.Context, off *offer.Published, done *Applied,
	wish level.Level) (store.Root, error) {
	root, err := s.stage(ctx, off, done)
	if err != nil {
		return root, err
	}
	noteStep(s, "stage")
	decision, err := s.decideLevel(ctx, root, wish)
	done.Decision = &decision
	if err != nil {
		return root, err
	}
	return root, rehearse(ctx, s, root, done.Volatile, decision.Level)
}

// rehearse does beforehand what could fail when services have stopped, and what would take time then: see
// [volatile.Rehearse] and [roots.PrepareEtc].
func rehearse(ctx context.Context, s *session, root store.Root, isVolatile bool, at level.Level) error {
	err := volatile.Rehearse(ctx, &s.Roots, root, s.facts, s.rec, isVolatile, at)
	if err == nil && at != level.Full && decide.ForwardVerb(s.facts, s.rec, root.ID) == record.VerbApply {
		err = roots.PrepareEtc(&s.Roots, root.ID, s.facts, s.rec)
	}
	if err == nil && at == level.Full {
		s.start, err = s.Boot.Install(ctx, root, s.Roots.VersionOf(root.ID, s.rec), s.facts)
	}
	return err
}

// switchTo requests the switch to a root that is ready. Named is whether the operator named it. Left, when not nil,
// marks the running root bad.
func (s *session) switchTo(ctx context.Context, done *Applied, root store.Root, named bool,
	left *record.Bad) error {
	if done.Volatile {
		left = nil
	} else if done.Decision.Level != level.Full { // a full reboot ends the kernel that live patches are loaded into
		s.loadBeforeSwitch(ctx, done)
	}
	sw := record.Switch{Verb: decide.ForwardVerb(s.facts, s.rec, root.ID), Version: done.Version}
	sw.Level, sw.Named, sw.Volatile = done.Decision.Level, named, done.Volatile
	sw.Before = s.Trial.Observe(ctx, s.facts, sw.Verb)
	noteStep(s, "prepare")
	sw.Steps, done.Switching = s.steps, true
	if sw.Start = s.start; s.rec.Landed(root.ID, s.facts) {
		sw.Start = s.rec.Switch.Start
	}
	err := s.Transition.Start(ctx, s.rec, s.facts, sw, root.ID, left)
	if err != nil {
		s.Boot.TakeBack(ctx)
		s.Turn.CallOff(ctx, err.Error())
	}
	return err
}

// mayTake returns why the host must not take what was fetched now, see [turn.Turn.May], if there is anything to take.
func mayTake(ctx context.Context, s *session, off *offer.Published, done Applied, o ApplyOptions) error {
	if off == nil || !takes(ctx, s, off, done, o) {
		return nil
	}
	return s.Turn.May(off.Release, o.IgnoreRollout)
}

// takes reports whether what was fetched would change anything here: the root, or in an unattended run, live patches.
func takes(ctx context.Context, s *session, off *offer.Published, done Applied, o ApplyOptions) bool {
	if done.Root != s.facts.Root || off.Release == nil || !o.Unattended || len(off.Release.LivePatches) == 0 {
		return done.Root != s.facts.Root
	}
	patches, err := s.Live.Survey(ctx, s.facts, s.rec)
	return err != nil || len(live.Waiting(patches)) > 0
}

// aboutSwitch returns what hooks are told about the switch to a root.
func aboutSwitch(s *session, done *Applied) hook.About {
	a := hook.About{From: s.facts.Root, FromVersion: s.Roots.VersionOf(s.facts.Root, s.rec), To: done.Root,
		Version: done.Version}
	if done.Decision != nil {
		a.Level = string(done.Decision.Level)
	}
	return a
}

// beginTurn asks the others whether the host may switch now, see [turn.Turn.Begin]. Nobody is asked about the return to
// the last good root.
func beginTurn(ctx context.Context, s *session, done *Applied) error {
	if decide.ForwardVerb(s.facts, s.rec, done.Root) == record.VerbResume {
		return nil
	}
	err := s.Turn.Begin(ctx, aboutSwitch(s, done), s.rec.Last)
	noteStep(s, "turn")
	return err
}

// applyResume requests the switch to the last good root, as it was left. When the published release has live patches
// only, they are loaded before. Failed is why what was published cannot be had.
func (s *session) applyResume(ctx context.Context, off *offer.Published, done Applied, failed error) (Applied, error) {
	if failed == nil && off.Image == nil {
		if err := s.Live.KeepEnabled(ctx, off, s.facts); err != nil {
			return done, err
		}
		s.loadBeforeSwitch(ctx, &done)
	}
	_, err := s.Roots.DecideResume(s.facts)
	if err = errors.Join(err, recheck.MayResume(s.Host, s.rec.LastGood())); err != nil {
		return done, err
	}
	done = Applied{Switching: true, Root: s.rec.LastGood(), From: s.facts.Root, Loaded: done.Loaded,
		Warnings: append(done.Warnings, recheck.OnReturn(&s.Roots, s.rec.LastGood(), s.facts)...)}
	done.Version, err = s.resumeRoot(ctx, s.rec.LastGood(), s.Trial.Observe(ctx, s.facts, record.VerbResume))
	return done, err
}

// settleFirst refuses a host that cannot run any image, and confirms the running root when it is still being tried: an
// unconfirmed root may still be rolled back, so apply refuses to start from it. The error is an ErrHostTooOld, an
// ErrTrying or, in a tree that does not run, a [record.ErrBlocked].
func (s *session) settleFirst(ctx context.Context) error {
	if err := checkHost(s.Machine.Running, s.facts); err != nil {
		return err
	}
	if !s.Machine.Running && s.rec.Moving() {
		return fmt.Errorf("%w: the host of this tree was on its way to %s; it ends that switch when it runs again",
			record.ErrBlocked, s.rec.Switch.Target)
	}
	if s.rec.Phase == record.PhaseTrying {
		err := s.Trial.ConfirmIfHealthy(ctx, s.facts, s.rec)
		if errors.Is(err, record.ErrUnhealthy) { // confirm rolls back; one that was ended, or has failed, begins anew
			err = errors.Join(err, s.Machine.Systemd.BeginConfirm(ctx))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrTrying, err)
		}
	}
	return nil
}

// mustStay reports whether the kernel command line keeps an unattended apply from leaving the host root.
func (s *session) mustStay(o ApplyOptions) (bool, error) {
	if !o.Unattended || !decide.OnHostRoot(s.facts, s.rec) {
		return false, nil
	}
	return s.Machine.Kernel.MustStay()
}

// decideLevel chooses the level for a staged root, considering the fixes that the running kernel lacks.
func (s *session) decideLevel(ctx context.Context, root store.Root, wish level.Level) (level.Decision, error) {
	open, err := s.Live.OpenFixes(ctx, s.facts, s.rec, root.ID)
	if err != nil {
		return level.Decision{}, err
	}
	decision, err := s.Roots.Decide(root, s.facts, s.rec, open, wish)
	if err == nil {
		err = s.Transition.Keep.Check(ctx, s.Roots.EtcChange(root.ID, s.facts, s.rec), &decision)
	}
	if err == nil || errors.Is(err, roots.ErrFullReboot) {
		err = cmp.Or(err, s.Boot.Check(ctx, root, s.facts, &decision))
	}
	return decision, cmp.Or(err, s.Trial.CheckPrograms())
}

// offered returns what apply decides by, from the result of fetch.
func offered(off *offer.Published, done Applied, err error) decide.Offering {
	if err != nil {
		return decide.Offering{Err: err}
	}
	return decide.Offering{Root: done.Root, Image: off.Image != nil}
}
