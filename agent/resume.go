package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/boot"
	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

// Resumed is which root the host resumes after a full reboot.
type Resumed struct {
	// Root is the root that the host is on its way to, "" when it stays on its host root; Reason is why.
	Root   string `json:"root,omitempty"`
	Reason string `json:"reason"`
	// Warnings are what to know about the trust in that root.
	Warnings []string `json:"warnings,omitempty"`
}

// Resume switches from the host root, on which a full reboot lands, to the root that the full reboot was for, or to
// the last good root. It acts once per full reboot, before ordinary services start. When it fails, the host stays on
// its host root.
func (a *Agent) Resume(ctx context.Context) (done Resumed, err error) {
	if err := a.RequireRunning(); err != nil {
		return done, err
	}
	first, err := a.Transition.FirstStart()
	if err != nil || !first {
		return Resumed{Reason: "userspace has started before since the last full reboot"}, err
	}
	before, err := a.Records.Read()
	if err != nil {
		return Resumed{}, err
	}
	defer func() {
		if err != nil && !errors.Is(err, transition.ErrFullRebootFollows) && before.LastGood() != switcher.HostRoot {
			a.Log.Info("staying on the host root", event.NotResumed.Field(), zap.String("reason", err.Error()))
		}
	}()
	s, err := a.begin(ctx, record.VerbResume, true)
	defer s.close()
	if s == nil { // with an error and a session, begin has recorded a switch that the reboot interrupted
		return Resumed{}, err
	}
	landed := before.Phase == record.PhaseArmed && s.rec.Last != nil && s.rec.Last.Outcome == level.Landed
	to, verb, why := s.rec.ResumeTarget(s.facts, landed)
	if verb == "" {
		a.Log.Info("staying on the host root", zap.String("reason", why))
		return Resumed{Reason: why}, nil
	}
	if verb == record.VerbApply {
		if err = s.finishFull(ctx, to); err == nil {
			return Resumed{Root: to, Reason: why}, nil
		}
		a.Log.Error("cannot switch to the root that the full reboot was for; the host goes on to its last good root",
			event.SwitchFailed.Field(), zap.String("root", to), zap.String("version", s.rec.Accepted[to].Version),
			zap.String("verb", verb), zap.String("reason", err.Error()))
		why = fmt.Sprintf("the full reboot was for %s, which failed: %v", to, err)
		s.rec.CountFailure(to, err.Error()) // or the next night would begin with the same full reboot
		boot.NoteLeft(s.rec, err.Error())
		if err := s.Records.WriteOutcome(s.rec); err != nil {
			a.Log.Warn("cannot record that the switch failed", zap.Error(err))
		}
		if s.rec.Switch.Start.Entry != "" { // the last good root was not proven on this kernel, either
			return Resumed{Reason: why}, fmt.Errorf("%w: %w", transition.ErrFullRebootFollows,
				errors.Join(err, s.Transition.LeaveKernel(ctx, why)))
		}
		if s.rec.LastGood() == switcher.HostRoot {
			return Resumed{Root: to, Reason: why}, err
		}
	}
	if to != "" {
		to, why = s.intactTarget(why)
	}
	if to == "" {
		a.Log.Error("staying on the host root", event.NotResumed.Field(), zap.String("reason", why))
		return Resumed{Reason: why}, nil
	}
	done = Resumed{Root: to, Reason: why, Warnings: recheck.OnReturn(&s.Roots, to, s.facts)}
	_, err = s.resumeRoot(ctx, to, health.Before{Unknown: true}) // no service runs yet: nothing to compare with
	return done, err
}

// intactTarget returns the good root to resume, "" to stay, and why. Why is the reason to resume the last good root. If
// that is damaged, it is the good root before it, unless that was resumed too often: a root that panics would have the
// machine reboot for as long as it runs.
func (s *session) intactTarget(why string) (to, reason string) {
	last := s.rec.LastGood()
	if to = roots.IntactGood(&s.Roots, s.facts, s.rec); to != last {
		if failed := record.ResumedTooOften(s.rec, to); failed != "" {
			return "", fmt.Sprintf("%s is damaged, and %s", last, failed)
		}
		why = fmt.Sprintf("%s; %s is damaged, and this is the good root before it", why, last)
	}
	if err := recheck.MayResume(s.Host, to); err != nil {
		return "", err.Error()
	}
	return to, why
}

// resumeRoot requests the switch to a good root, as it was left, and returns its version.
func (s *session) resumeRoot(ctx context.Context, id string, before health.Before) (string, error) {
	version, err := s.Roots.MakeReady(id, s.facts, s.rec)
	if err != nil {
		return "", err
	}
	version = cmp.Or(s.rec.Accepted[id].Version, version)
	sw := record.Switch{Verb: record.VerbResume, Version: version, Before: before}
	return version, s.Transition.Start(ctx, s.rec, s.facts, sw, id, nil)
}

// finishFull requests the second half of a switch of level full: from the host root into the target.
func (s *session) finishFull(ctx context.Context, to string) error {
	sw := record.Switch{Verb: record.VerbApply, Version: s.rec.Accepted[to].Version, Named: s.rec.Switch.Named,
		Before: s.rec.Switch.Before} // the state of the services before the full reboot
	sw.Start = s.rec.Switch.Start
	if left := cmp.Or(s.rec.Switch.Back, s.rec.Switch.From); left != s.facts.Root {
		sw.Back = left
	}
	root, err := s.Machine.Trees.Root(to)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", roots.ErrNoRoot, to, err)
	}
	if err := s.Roots.Rehearse(root, s.facts, s.rec); err != nil {
		return err
	}
	return s.Transition.Start(ctx, s.rec, s.facts, sw, to, nil)
}
