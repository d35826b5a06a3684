package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// session is one running command: the lock it holds, and the host and the record as it found them.
type session struct {
	*Agent
	facts  facts.Facts
	rec    *record.Record
	unlock func()
	start  level.Start // what a full reboot starts once
	// steps are what was done so far, the last one until the uptime lastStep.
	steps    []outage.Step
	lastStep time.Duration
}

// noteStep notes that a step of the command has ended.
func noteStep(s *session, step string) {
	now := s.Machine.Kernel.SinceBoot()
	s.steps, s.lastStep = append(s.steps, outage.Step{Name: step, Took: now - s.lastStep}), now
}

// close releases the lock. It does nothing on a nil session.
func (s *session) close() {
	if s != nil {
		s.unlock()
	}
}

// open starts a command that changes something: it takes the lock and reads the host. The error is a [record.ErrBusy]
// when another updatectl holds the lock, and a [record.ErrLost] when the record is gone.
func (a *Agent) open(ctx context.Context, verb string, wait bool) (*session, error) {
	unlock, err := a.Lock(ctx, verb, wait)
	if err != nil {
		return nil, err
	}
	s := &session{Agent: a, unlock: unlock, lastStep: a.Machine.Kernel.SinceBoot()}
	if s.facts, s.rec, err = a.Look(ctx); err == nil {
		err = a.Roots.Open()
	}
	// gc would remove every other root. A rollback leads to the host root at least, which needs no record.
	if err == nil && verb != record.VerbRollback && a.Trial.IsLost(s.facts) {
		err = record.ErrLost
	}
	if err != nil {
		unlock()
		return nil, err
	}
	if err := a.KeepRestrictions(); err != nil { // it must not prevent a rollback
		a.Log.Warn(err.Error())
	}
	return s, nil
}

// begin opens a session and cleans up after earlier commands: it removes half-made files and reconciles the record
// with what is mounted at /. A [transition.ErrSwitch] comes with a valid session: it reports that an earlier switch
// failed. A switch back that failed is followed by a full reboot: the error is a [transition.ErrFullRebootFollows],
// which is an ErrSwitch, too, and there is no session. So a caller that goes on looks for a session, not at the error.
func (a *Agent) begin(ctx context.Context, verb string, wait bool) (*session, error) {
	s, err := a.open(ctx, verb, wait)
	if err != nil {
		return nil, err
	}
	if err := s.reconcile(ctx); errors.Is(err, transition.ErrSwitch) && !errors.Is(err, transition.ErrFullRebootFollows) {
		return s, err
	} else if err != nil {
		s.close()
		return nil, err
	}
	if s.rec.Phase != record.PhaseTrying { // in a trial a guard may be writing, and it takes no lock
		roots.Sweep(&s.Roots)
		if verb != record.VerbResume && verb != record.VerbRollback { // neither waits for the boot loader
			s.Boot.Settle(ctx, s.facts, s.rec)
		}
	}
	return s, nil
}

// beginSettled is [Agent.begin] for a command that leads to another root: none does from a root that is not confirmed.
func beginSettled(ctx context.Context, a *Agent, verb string, wait bool) (*session, error) {
	s, err := a.begin(ctx, verb, wait)
	if err == nil {
		err = s.settleFirst(ctx)
	}
	if err == nil {
		err = volatile.MayBegin(s.facts, verb)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// reconcile disarms a root that an earlier switch left armed, and reconciles the record with what is mounted at /.
func (s *session) reconcile(ctx context.Context) error {
	if !s.Machine.Running {
		return nil
	}
	blocked := s.Transition.DisarmLeftover(ctx, s.facts, s.rec)
	if errors.Is(blocked, transition.ErrGuardLeaves) {
		return blocked
	}
	if _, bad := s.rec.Bad[s.facts.Root]; bad {
		s.Transition.MakeWritable(s.Config.State.Persist, s.rec.Switch.KeptSince(s.facts.BootID))
	}
	err := s.Transition.FullRebootIfNotBack(ctx, s.facts, s.rec, s.Transition.Reconcile(ctx, s.facts, s.rec))
	if blocked != nil && errors.Is(err, transition.ErrSwitch) && !errors.Is(err, transition.ErrFullRebootFollows) {
		return blocked // the outcome is in the record now
	}
	return errors.Join(blocked, err)
}

// checkHost returns an ErrHostTooOld when this host cannot run any image. It is called before anything is fetched.
func checkHost(running bool, f facts.Facts) error {
	if c := level.CheckHost(f); running && c.Verdict == level.VerdictRefuse {
		return fmt.Errorf("%w: %s", ErrHostTooOld, c.Reason)
	}
	return nil
}

// tidyUp runs after a root became good: it removes roots that nothing needs, and loads the live patches that waited
// for the confirmation.
func (a *Agent) tidyUp(ctx context.Context, f facts.Facts, rec *record.Record) {
	// After a rollback or a switch among the roots here, the root that was left stays until the next apply.
	if rec.Switch.Verb == record.VerbApply && !rec.Switch.Named {
		report, err := a.Garbage.Collect(f, rec)
		if err != nil {
			a.Log.Warn("cannot remove roots that nothing needs", zap.Error(err))
		}
		for _, warning := range report.Warnings {
			a.Log.Warn(warning)
		}
	}
	a.Boot.Settle(ctx, f, rec)      // before what takes minutes: a reboot would start the old kernel
	a.Live.LoadWaiting(ctx, f, rec) // the result is in the log and the history
}
