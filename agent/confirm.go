package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher"
)

// Confirmed is the answer of confirm.
type Confirmed struct {
	Root string `json:"root"`
	// Good tells that the running root counts as good.
	Good bool `json:"good"`
	// Last is how the last switch ended, nil when there was none.
	Last *Result `json:"last,omitempty"`
}

// Confirm runs in every root once it is up. After a switch it proves that the host is where it was sent, and marks the
// root good. A switch that ended elsewhere is an error, told once.
func (a *Agent) Confirm(ctx context.Context) (Confirmed, error) {
	if err := a.requireLive(); err != nil {
		return Confirmed{}, err
	}
	unlock, err := a.lock(ctx, "confirm", true)
	if err != nil {
		return Confirmed{}, err
	}
	defer unlock()
	facts, rec, err := a.look(ctx)
	if err != nil {
		return Confirmed{}, err
	}
	if err := errors.Join(a.disarmLeftover(ctx, rec), a.reconcile(ctx, facts, rec)); err != nil {
		return Confirmed{Root: facts.Root, Last: rec.Last}, err
	}
	if rec.Phase == PhaseTrying {
		if err := a.settle(ctx, facts, rec); err != nil {
			return Confirmed{Root: facts.Root, Last: rec.Last}, err
		}
	}
	return Confirmed{Root: facts.Root, Good: rec.good() == facts.Root, Last: rec.Last}, nil
}

// settle marks a root that is being tried good, once it is up.
func (a *Agent) settle(ctx context.Context, f switcher.Facts, rec *Record) error {
	if err := a.Machine.AwaitStarted(ctx, time.Duration(a.Config.Health.Deadline)); err != nil {
		return fmt.Errorf("%w: %s is not good: %w", ErrSwitch, f.Root, err)
	}
	rec.confirm(f.Root)
	rec.Phase = PhaseGood
	if rec.Staged == f.Root {
		rec.Staged = ""
	}
	delete(rec.Bad, f.Root)
	if err := a.writeRecord(rec); err != nil {
		return err
	}
	a.tell(Event{Event: "good", Root: f.Root, From: rec.Switch.From, Version: rec.Switch.Version, Kernel: f.KernelRelease})
	a.Log.Info("the root is good", zap.String("root", f.Root))
	a.loadWaiting(ctx, f, rec) // what stalled before the switch; it is in the log and the history
	if err := retireEtc(filepath.Join(a.path(StateDir), "roots", f.Root, "etc")); err != nil {
		a.Log.Warn(err.Error())
	}
	if rec.Switch.Verb == verbApply { // a root that was rolled back from is kept until the next one is good
		a.collect(f, rec)
	}
	return nil
}

// disarmLeftover takes away a root that this agent armed and systemd did not move into. Left armed, it would turn an
// administrator's reboot into a soft one. What somebody else armed is theirs.
func (a *Agent) disarmLeftover(ctx context.Context, rec *Record) error {
	underWay, err := a.Machine.ShuttingDown(ctx)
	if err != nil {
		return err
	}
	armed, err := switcher.Armed()
	if err != nil {
		return err
	}
	if underWay {
		if armed != "" {
			return fmt.Errorf("%w: a soft reboot into %s is under way", ErrBlocked, armed)
		}
		return nil
	}
	if err := switcher.Clear(); err != nil {
		return err
	}
	stamp := readStamp(a.path(stampFile))
	ours := strings.HasPrefix(armed, "sha256-") || rec.Phase == PhaseArmed || stamp != nil && stamp.Error == ""
	switch {
	case armed == "":
		return nil
	case !ours:
		return fmt.Errorf("%w: somebody else armed %s at %s; unmount it or let it happen first", ErrBlocked, armed, switcher.NextRoot)
	}
	a.Log.Warn("a root was left armed; it is disarmed", zap.String("root", armed))
	return switcher.Disarm()
}

// reconcile brings the record into line with what is mounted at /. A switch that failed is recorded and returned as an
// error once; the next command finds it in the record only.
func (a *Agent) reconcile(ctx context.Context, f switcher.Facts, rec *Record) error {
	switch rec.Phase {
	case PhaseArmed:
		return a.proveSwitch(ctx, f, rec)
	case PhaseTrying:
		if f.Root != rec.Switch.Target {
			return a.giveUp(rec, switcher.Rebooted, fmt.Sprintf("the host left %s before it was good; %s is mounted at /", rec.Switch.Target, f.Root))
		}
	}
	return nil
}

func (a *Agent) proveSwitch(ctx context.Context, f switcher.Facts, rec *Record) error {
	outcome, reason := switcher.Prove(rec.Switch.Expectation, f, readStamp(a.path(stampFile)))
	switch outcome {
	case switcher.Switched:
		rec.Phase = PhaseTrying
		rec.Last = &Result{Outcome: outcome, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
		return a.writeRecord(rec)
	case switcher.Pending:
		return a.pending(ctx, rec)
	case switcher.Landed:
		return a.land(ctx, rec, reason)
	}
	return a.giveUp(rec, outcome, reason)
}

// pending is a switch that has not happened. Either systemd is on its way, or the agent was killed between writing the
// record and asking.
func (a *Agent) pending(ctx context.Context, rec *Record) error {
	underWay, err := a.Machine.ShuttingDown(ctx)
	if err != nil {
		return err
	}
	if underWay {
		return fmt.Errorf("%w: the switch to %s is under way", ErrBlocked, rec.Switch.Target)
	}
	if err := a.Machine.ReleaseArmUnit(ctx); err != nil {
		return err
	}
	a.Log.Warn("a switch was prepared and never asked for; it is taken back", zap.String("root", rec.Switch.Target))
	rec.Phase = rec.resting()
	return a.writeRecord(rec)
}

// land records that the kernel was booted for a switch and nothing has gone on from the host yet. Whoever goes on does it
// by a soft reboot, which is a switch of its own.
func (a *Agent) land(ctx context.Context, rec *Record, reason string) error {
	underWay, err := a.Machine.ShuttingDown(ctx)
	if err != nil {
		return err
	}
	if underWay {
		return fmt.Errorf("%w: the switch to %s is under way", ErrBlocked, rec.Switch.Target)
	}
	a.Log.Warn(reason + "; `updatectl apply` does")
	rec.Last = &Result{Outcome: switcher.Landed, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
	rec.Phase = rec.resting()
	return a.writeRecord(rec)
}

// resting is the phase of a host that is not on its way anywhere.
func (r *Record) resting() Phase {
	if r.Staged != "" {
		return PhaseStaged
	}
	return PhaseGood
}

// giveUp records a switch that failed.
func (a *Agent) giveUp(rec *Record, outcome switcher.Outcome, reason string) error {
	now := a.Now().UTC()
	target := rec.Switch.Target
	rec.Last = &Result{Outcome: outcome, Reason: reason, Target: target, At: now}
	if outcome == switcher.FellBack { // systemd would not have it the next time either
		rec.Bad[target] = Bad{Reason: reason, At: now}
	}
	rec.Phase = rec.resting()
	if err := a.writeRecord(rec); err != nil {
		return err
	}
	a.tell(Event{Event: "failed", Root: target, From: rec.Switch.From, Version: rec.Switch.Version, Reason: reason})
	return fmt.Errorf("%w: %s", ErrSwitch, reason)
}
