package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// Resumed is what a boot of the kernel went on to.
type Resumed struct {
	// Root is the root that the host is on its way to, "" when it stays; Reason says why.
	Root   string `json:"root,omitempty"`
	Reason string `json:"reason"`
}

const again = "userspace was started before since the kernel was booted"

// Resume goes on from a boot of the kernel, which lands on the mutable host, to the last good root, or to the one that the
// kernel was booted for. It runs once, before ordinary services start, and anything that keeps it from going on leaves
// the host where it is.
func (a *Agent) Resume(ctx context.Context) (Resumed, error) {
	if err := a.requireLive(); err != nil {
		return Resumed{}, err
	}
	unlock, err := a.Lock(ctx, record.VerbResume, true)
	if err != nil {
		return Resumed{}, err
	}
	defer unlock()
	first, err := a.Transition.FirstStart()
	if err != nil || !first {
		return Resumed{Reason: again}, err
	}
	start := a.Now().UTC()
	st, facts, rec, err := a.begin(ctx)
	if err != nil && !errors.Is(err, transition.ErrSwitch) { // a switch that a boot interrupted is recorded now
		return Resumed{}, err
	}
	landed := rec.Last != nil && rec.Last.Outcome == level.Landed && !rec.Last.At.Before(start) // once, just now
	if facts.SoftReboots > 0 {                                                                  // by hand, before there was a stamp
		return Resumed{Reason: again}, nil
	}
	to, verb, why := rec.ResumeTarget(facts, landed)
	if to == "" {
		a.Log.Info("the host stays where the kernel booted it", zap.String("reason", why))
		return Resumed{Reason: why}, nil
	}
	err = a.goOn(ctx, st, facts, rec, to, verb)
	if last := rec.LastGood(); err != nil && verb == record.VerbApply && last != switcher.HostRoot {
		a.Log.Error("cannot go on to the root that the kernel was booted for; the last good one is next", zap.String("root", to), zap.Error(err))
		to, why = last, fmt.Sprintf("%s cannot be gone on to: %v", to, err)
		err = a.goOn(ctx, st, facts, rec, to, record.VerbResume)
	}
	return Resumed{Root: to, Reason: why}, err
}

// goOn makes a root ready and asks for the switch.
func (a *Agent) goOn(ctx context.Context, st *store.Store, f facts.Facts, rec *record.Record, to, verb string) error {
	s := record.Switch{Verb: verb, Version: rec.Accepted[to].Version}
	if verb == record.VerbResume {
		version, err := a.Roots.MakeReady(st, to, f, rec)
		if err != nil {
			return err
		}
		s.Version = cmp.Or(s.Version, version)
		s.Before.Unknown = true // so early in a boot there is nothing to see
		return a.Transition.Start(ctx, rec, f, s, to)
	}
	s.Before = rec.Switch.Before // as it was when the host was left for this
	if left := cmp.Or(rec.Switch.Back, rec.Switch.From); left != f.Root {
		s.Back = left
	}
	root, err := st.Root(to)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", roots.ErrNoRoot, to, err)
	}
	if err := a.Roots.Rehearse(st, root, f, rec); err != nil {
		return err
	}
	return a.Transition.Start(ctx, rec, f, s, to)
}
