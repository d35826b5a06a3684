package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

// Resumed is where the host went on to after a full reboot.
type Resumed struct {
	// Root is the root that the host is on its way to, "" when it stays; Reason says why.
	Root   string `json:"root,omitempty"`
	Reason string `json:"reason"`
}

const startedBefore = "userspace was started before since the last full reboot"

// Resume goes on from a full reboot, which lands on the host root, to the last good root, or to the one that the full
// reboot was asked for. It runs once, before ordinary services start, and anything that keeps it from going on leaves the
// host where it is.
func (a *Agent) Resume(ctx context.Context) (Resumed, error) {
	if err := a.RequireRunning(); err != nil {
		return Resumed{}, err
	}
	first, err := a.Transition.FirstStart()
	if err != nil || !first {
		return Resumed{Reason: startedBefore}, err
	}
	start := a.Now().UTC()
	s, err := a.begin(ctx, record.VerbResume, true)
	defer s.close()
	if err != nil && !errors.Is(err, transition.ErrSwitch) { // a switch that the reboot interrupted is recorded now
		return Resumed{}, err
	}
	last := s.rec.Last
	landed := last != nil && last.Outcome == level.Landed && !last.At.Before(start) // once, just now
	if s.facts.SoftReboots > 0 {                                                    // by hand, before there was a stamp
		return Resumed{Reason: startedBefore}, nil
	}
	to, verb, why := s.rec.ResumeTarget(s.facts, landed)
	if to == "" {
		a.Log.Info("the host stays on its host root", zap.String("reason", why))
		return Resumed{Reason: why}, nil
	}
	if verb == record.VerbApply {
		err := s.finishFull(ctx, to)
		if err == nil || s.rec.LastGood() == switcher.HostRoot {
			return Resumed{Root: to, Reason: why}, err
		}
		a.Log.Error("cannot go on to the root that the full reboot was for; the last good one is next",
			zap.String("root", to), zap.Error(err))
		why = fmt.Sprintf("the host cannot go on to %s: %v", to, err)
	}
	_, err = s.resumeRoot(ctx, health.Before{Unknown: true}) // so early there is nothing to compare with
	return Resumed{Root: s.rec.LastGood(), Reason: why}, err
}

// resumeRoot asks for the switch to the last good root, as it was left, and returns its version.
func (s *session) resumeRoot(ctx context.Context, before health.Before) (string, error) {
	id := s.rec.LastGood()
	version, err := s.Roots.MakeReady(id, s.facts, s.rec)
	if err != nil {
		return "", err
	}
	version = cmp.Or(s.rec.Accepted[id].Version, version)
	return version, s.Transition.Start(ctx, s.rec, s.facts, record.Switch{Verb: record.VerbResume, Version: version, Before: before}, id, nil)
}

// finishFull asks for the second half of a full switch: from the host root into the target.
func (s *session) finishFull(ctx context.Context, to string) error {
	sw := record.Switch{Verb: record.VerbApply, Version: s.rec.Accepted[to].Version}
	sw.Before = s.rec.Switch.Before // as it was when the host was left for this
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
