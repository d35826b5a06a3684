package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
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
	// Unattended is set by the timer: an image that was given up is skipped, and is no error.
	Unattended bool
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
	s, err := a.begin(ctx, "apply", o.Wait)
	defer s.close()
	if err == nil {
		err = s.settleFirst(ctx)
	}
	if err != nil {
		return Applied{}, err
	}
	s.rec.Accepting = o.Accept
	off, done, fetchErr := s.fetch(ctx, o)
	stay, err := s.mustStay(o)
	fetchErr = errors.Join(fetchErr, err)
	switch d := decideApply(s.facts, s.rec, offered(off, done, fetchErr), o, stay); d.do {
	case doRefuse:
		return done, d.err
	case doStay:
		return Applied{Root: s.facts.Root, From: s.facts.Root, Skipped: d.why}, nil
	case doSkip:
		done.Skipped = d.why
		return done, nil
	case doLiveOnly:
		err = s.applyLive(ctx, off, &done, o.Level)
		return done, err
	case doResume:
		a.Log.Warn("resuming the last good root", zap.String("reason", d.why))
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
	err = s.switchTo(ctx, off, &done, root)
	return done, err
}

// prepare stages the published image, decides the level of the switch to it, and makes its root ready.
func (s *session) prepare(ctx context.Context, off *offer.Published, done *Applied,
	wish level.Level) (store.Root, error) {
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

// switchTo requests the switch to a root that is ready.
func (s *session) switchTo(ctx context.Context, off *offer.Published, done *Applied, root store.Root) error {
	if done.Decision.Level != level.Full { // a full reboot ends the kernel that live patches are loaded into
		s.loadBeforeSwitch(ctx, done)
	}
	sw := record.Switch{Verb: forwardVerb(s.facts, s.rec, root.ID), Version: done.Version}
	sw.Level = done.Decision.Level
	sw.Before = s.Trial.Observe(ctx, s.facts, sw.Verb)
	done.Switching = true
	return s.Transition.Start(ctx, s.rec, s.facts, sw, root.ID, leftForOlder(off, s))
}

// leftForOlder returns a reason to mark the running root bad when the operator applies an older release: otherwise the
// timer would undo that the next night. It returns nil when the release is not older.
func leftForOlder(off *offer.Published, s *session) *record.Bad {
	if !off.OlderThan(s.rec, s.facts.Root) {
		return nil
	}
	return &record.Bad{Reason: "left by the operator for version " + off.Mark.Version}
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
	done.Version, err = s.resumeRoot(ctx, s.Trial.Observe(ctx, s.facts, record.VerbResume))
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
	if !o.Unattended || !onHostRoot(s.facts, s.rec) {
		return false, nil
	}
	return s.Machine.Kernel.MustStay()
}

// onHostRoot reports whether a full reboot landed on the host root while the last good root is an image root.
func onHostRoot(f facts.Facts, rec *record.Record) bool {
	return f.Root == switcher.HostRoot && rec.LastGood() != switcher.HostRoot
}

// inBadRoot reports whether the host rests in a root that was given up: who had to leave it was killed.
func inBadRoot(f facts.Facts, rec *record.Record) bool {
	_, bad := rec.Bad[f.Root]
	return bad && !slices.Contains(rec.Good, f.Root) && rec.LastGood() != ""
}

// stranded reports whether an unattended apply has to bring the host to its last good root when there is nothing
// better. A root that was resumed too often without becoming good is not resumed again.
func stranded(f facts.Facts, rec *record.Record, o ApplyOptions) bool {
	return o.Unattended && (onHostRoot(f, rec) || inBadRoot(f, rec)) &&
		rec.ResumeAttempts(rec.LastGood()) < record.MaxAttempts
}

// whyStranded returns why a host does not run its last good root.
func whyStranded(f facts.Facts, rec *record.Record) string {
	if inBadRoot(f, rec) {
		return "the running root was " + rec.Bad[f.Root].WhenAndWhy()
	}
	return "a full reboot landed on the host root"
}

// forwardVerb returns the verb for a switch to a root. After a full reboot, the root that ran before is resumed and
// keeps its /etc; to any other root it is an apply, which makes a new /etc.
func forwardVerb(f facts.Facts, rec *record.Record, id string) string {
	if f.Root == switcher.HostRoot && rec.LastGood() == id {
		return record.VerbResume
	}
	return record.VerbApply
}

// decideLevel chooses the level for a staged root, considering the fixes that the running kernel lacks.
func (s *session) decideLevel(ctx context.Context, root store.Root, wish level.Level) (level.Decision, error) {
	open, err := s.Live.OpenFixes(ctx, s.facts, s.rec, root.ID)
	if err != nil {
		return level.Decision{}, err
	}
	decision, err := s.Roots.Decide(root, s.facts, s.rec, open, wish)
	return decision, cmp.Or(err, s.Trial.CheckPrograms())
}

// offering is the part of what was published that apply decides by.
type offering struct {
	// err is why nothing could be fetched; the other fields are empty then.
	err error
	// root is the root to run.
	root string
	// image is whether an image is published; if not, the release has live patches only.
	image bool
}

// offered returns what apply decides by, from the result of fetch.
func offered(off *offer.Published, done Applied, err error) offering {
	if err != nil {
		return offering{err: err}
	}
	return offering{root: done.Root, image: off.Image != nil}
}

// applyAct is what apply does next.
type applyAct string

const (
	doRefuse   applyAct = "refuse"    // fail
	doStay     applyAct = "stay"      // unattended: leave the host on its host root
	doSkip     applyAct = "skip"      // unattended: pass over what is published
	doLiveOnly applyAct = "live only" // the root runs already: only live patches change
	doResume   applyAct = "resume"    // switch to the last good root, as it was left
	doSwitch   applyAct = "switch"    // stage the image and switch to it
)

// applyDecision is what apply does next, and why; err is the error of doRefuse.
type applyDecision struct {
	do  applyAct
	why string
	err error
}

// decideApply decides what apply does with what is published. Stay is whether the kernel command line keeps the host
// on its host root. Several cases may apply to a host; the first one counts.
func decideApply(f facts.Facts, rec *record.Record, off offering, o ApplyOptions, stay bool) applyDecision {
	last := rec.LastGood()
	resumes := rec.ResumeAttempts(last)
	stranded := stranded(f, rec, o)
	bad, isBad := rec.Bad[off.root]
	failed := rec.Failed[off.root]
	switch {
	case stay:
		return applyDecision{do: doStay, why: "the kernel command line has updatectl.resume=0, so the host stays on its " +
			"host root; `updatectl apply` or `updatectl rollback` continues"}
	case off.err != nil && stranded:
		return applyDecision{do: doResume, why: "nothing newer is available: " + off.err.Error()}
	case off.err != nil:
		return applyDecision{do: doRefuse, err: off.err}
	case isBad && off.root == f.Root && !o.Retry && stranded:
		return applyDecision{do: doResume, why: whyStranded(f, rec)}
	case off.root == f.Root:
		return applyDecision{do: doLiveOnly}
	case !off.image && o.Unattended && resumes >= record.MaxAttempts:
		return applyDecision{do: doSkip, why: fmt.Sprintf("%d attempts to resume %s after a full reboot failed",
			resumes, last)}
	case !off.image:
		return applyDecision{do: doResume, why: whyStranded(f, rec)}
	case isBad && !o.Retry && stranded:
		return applyDecision{do: doResume, why: "the published image was " + bad.WhenAndWhy()}
	case isBad && !o.Retry && o.Unattended:
		return applyDecision{do: doSkip, why: bad.WhenAndWhy()}
	case isBad && !o.Retry:
		return applyDecision{do: doRefuse, err: bad.Err()}
	case o.Unattended && off.root == last && resumes >= record.MaxAttempts:
		return applyDecision{do: doSkip, why: fmt.Sprintf("%d attempts to resume it after a full reboot failed", resumes)}
	case stranded && failed.Times >= record.MaxAttempts:
		return applyDecision{do: doResume, why: fmt.Sprintf("%d switches to the published image failed, "+
			"the last one because %s", failed.Times, failed.Reason)}
	case o.Unattended && failed.Times >= record.MaxAttempts:
		return applyDecision{do: doSkip, why: fmt.Sprintf("%d switches to it failed, the last one because %s; "+
			"`updatectl apply` tries again", failed.Times, failed.Reason)}
	}
	return applyDecision{do: doSwitch}
}
