package agent

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// session is a command at work: the lock that it holds, and the host and the record as it found them.
type session struct {
	*Agent
	facts  facts.Facts
	rec    *record.Record
	unlock func()
}

// close gives the lock back.
func (s *session) close() {
	if s != nil {
		s.unlock()
	}
}

// open starts a command that changes something: it takes the lock and reads the host.
func (a *Agent) open(ctx context.Context, verb string, wait bool) (*session, error) {
	unlock, err := a.Lock(ctx, verb, wait)
	if err != nil {
		return nil, err
	}
	s := &session{Agent: a, unlock: unlock}
	if s.facts, s.rec, err = a.Look(ctx); err == nil {
		err = a.Roots.Open()
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return s, nil
}

// begin is open, and then puts in order what an earlier command left: half-made files are removed, and the record is
// reconciled with what is mounted at /. With an ErrSwitch the session is good: an earlier switch failed.
func (a *Agent) begin(ctx context.Context, verb string, wait bool) (*session, error) {
	s, err := a.open(ctx, verb, wait)
	if err != nil {
		return nil, err
	}
	if err := s.reconcile(ctx); err != nil && !errors.Is(err, transition.ErrSwitch) {
		s.close()
		return nil, err
	} else if err != nil {
		return s, err
	}
	if s.rec.Phase != record.PhaseTrying { // a guard may be writing then, and it takes no lock
		s.sweep()
	}
	return s, nil
}

// reconcile brings the running host and the record into line.
func (s *session) reconcile(ctx context.Context) error {
	if !s.Machine.Running {
		return nil
	}
	err := s.Transition.DisarmLeftover(ctx, s.facts, s.rec)
	if errors.Is(err, transition.ErrGuardLeaves) {
		return err
	}
	return errors.Join(err, s.Transition.Reconcile(ctx, s.facts, s.rec))
}

// halfNames match what a killed command leaves: files and trees that were to get their final name. The store of roots
// sweeps its own.
var halfNames = []string{
	record.StateDir + "/.*.json.*",     // the record
	record.StateDir + "/*.json.new-*",  // the ledger of numbers
	record.StateDir + "/roots/*/*.new", // a graft, an /etc
	record.StateDir + "/roots/*/etc" + roots.EtcMerged,
	switcher.RunDir + "/.*.json.*", // the stamp
}

// sweep removes what killed commands left half made. Only who holds the lock may do that, with no switch under way. What
// cannot be removed stops nothing.
func (s *session) sweep() {
	err := s.Machine.Trees.Sweep()
	for _, pattern := range halfNames {
		halves, gerr := s.Machine.Disk.Glob(s.Path(pattern))
		err = errors.Join(err, gerr)
		for _, half := range halves {
			err = errors.Join(err, s.Machine.Disk.RemoveAll(half))
		}
	}
	if err != nil {
		s.Log.Warn("cannot remove what an earlier command left half made", zap.Error(err))
	}
}

// checkHost refuses a host that no image can help, before anything is fetched for it.
func checkHost(running bool, f facts.Facts) error {
	if c := level.CheckHost(f); running && c.Verdict == level.VerdictRefuse {
		return fmt.Errorf("%w: %s", ErrHostTooOld, c.Reason)
	}
	return nil
}

// tidyUp is what is done once a root has become good: roots that nothing needs are removed, and live patches loaded that
// waited for it.
func (a *Agent) tidyUp(ctx context.Context, f facts.Facts, rec *record.Record) {
	if rec.Switch.Verb == record.VerbApply { // a root that was rolled back from is kept until the next one is good
		if _, err := a.gc(f, rec); err != nil {
			a.Log.Warn("cannot remove roots that nothing needs", zap.Error(err))
		}
	}
	a.Live.LoadWaiting(ctx, f, rec) // how it ends is in the log and the history
}
