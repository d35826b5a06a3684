package agent

import (
	"context"

	"github.com/updatectl/updatectl/agent/decide"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

// Switch brings the host to a root that is staged: to is its identity, the beginning of it, or its version. It is an
// [Agent.Apply] that fetches nothing: today's policy has to accept the evidence of the root, the root gets a new /etc
// with the changes of the running one, and it has to become good. Neither sequence, barrier nor expiry is checked:
// whoever names a root decides about its order. The host root, [switcher.HostRoot], has an /etc of its own: to it, this
// is an [Agent.Rollback]. Of the options, From, AllowDowngrade and Unattended have no effect. The error is a
// [roots.ErrNoRoot] when there is no such root, or more than one.
func (a *Agent) Switch(ctx context.Context, to string, o ApplyOptions) (Applied, error) {
	if to == switcher.HostRoot {
		return a.Rollback(ctx, to, o.Wait)
	}
	if err := a.RequireRunning(); err != nil {
		return Applied{}, err
	}
	s, err := beginSettled(ctx, a, "switch", o.Wait)
	if err != nil {
		return Applied{}, err
	}
	defer s.close()
	if err := s.Turn.May(nil, false); err != nil {
		return Applied{}, err
	}
	s.rec.Accepting = o.Accept
	root, err := a.Roots.Find(to)
	if err != nil {
		return Applied{}, err
	}
	done := Applied{Root: root.ID, Volatile: o.Volatile, From: s.facts.Root, Version: a.Roots.VersionOf(root.ID, s.rec)}
	if d := decide.SwitchTo(s.facts.Root, s.rec, root.ID, o.Retry); d.Do != decide.Switch {
		return done, d.Err
	}
	if err := s.readyStaged(ctx, root, &done, o.Level); err != nil {
		return done, err
	}
	if err := beginTurn(ctx, s, &done); err != nil {
		return done, err
	}
	err = s.switchTo(ctx, &done, root, true, decide.LeftFor(done.Version))
	return done, err
}

// readyStaged checks a staged root by today's policy, decides the level of the switch to it, and makes it ready.
func (s *session) readyStaged(ctx context.Context, root store.Root, done *Applied, wish level.Level) error {
	policy, err := s.Policy()
	if err != nil {
		return err
	}
	if done.Vouchers, err = recheck.Accepted(root, policy); err != nil {
		return err
	}
	if err := roots.CheckWhole(&s.Roots, root); err != nil {
		return err
	}
	decision, err := s.decideLevel(ctx, root, wish)
	done.Decision = &decision
	if err != nil {
		return err
	}
	return rehearse(ctx, s, root, done.Volatile, decision.Level)
}
