package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Arm is the last thing that runs in the root that is left: the arming unit calls it when every service has stopped.
// It makes the new root's /etc and arms the root, or leaves a stamp that says why not; systemd then stays here.
func (a *Agent) Arm(ctx context.Context) error {
	rec, err := a.readRecord()
	if err != nil || rec.Phase != PhaseArmed {
		return err
	}
	queued, err := a.Machine.PID1.SoftRebootQueued(ctx)
	if err != nil {
		return err
	}
	if !queued { // another kind of shutdown, or the unit was stopped by hand
		return nil
	}
	if err = a.guarded(ctx, rec); err == nil {
		err = a.arm(ctx, rec)
	}
	if errors.Is(err, errTakenBack) {
		a.Log.Warn(err.Error())
		return nil
	}
	if rec.Switch.Verb == verbBack || rec.Switch.Verb == verbRollback {
		a.absolve(ctx)
	}
	stamp := level.Stamp{Target: rec.Switch.Target, At: sinceBoot()}
	if err != nil {
		stamp.Error = err.Error()
	}
	// The stamp is what will be read: the journal has stopped, too. A root that is armed is gone to without it, and what is
	// mounted at / then tells the rest: no failed unit is to meet it there.
	if serr := a.writeStamp(stamp); serr != nil {
		a.Log.Warn("cannot leave a stamp", zap.Error(serr))
	}
	if err != nil {
		a.Log.Error("cannot arm the new root; the host stays in this one", zap.Error(err))
	}
	return err
}

// guarded refuses a switch that nobody watches: there would be no way back from a root that is dead.
func (a *Agent) guarded(ctx context.Context, rec *Record) error {
	if rec.Switch.Verb == verbBack { // from the root that is dead
		return nil
	}
	active, err := a.Machine.PID1.UnitActive(ctx, pid1.GuardUnit)
	if err == nil && !active {
		err = fmt.Errorf("%s has ended, and nobody would come back from a root that is dead", pid1.GuardUnit)
	}
	return err
}

// absolve has systemd forget what the root that is left did wrong: a service that crashed too often there would not be
// started in the good one.
func (a *Agent) absolve(ctx context.Context) {
	if err := a.Machine.PID1.ForgetFailures(ctx); err != nil {
		a.Log.Warn("cannot clear the failures of the root that is left", zap.Error(err))
	}
}

func (a *Agent) arm(ctx context.Context, rec *Record) error {
	facts, err := a.Machine.Facts(ctx)
	if err != nil {
		return err
	}
	st, err := a.openStore()
	if err != nil {
		return err
	}
	a.notePast(facts.Root)
	next := a.next(st, rec.Switch.Target, facts)
	if next.ID != switcher.HostRoot {
		if err := a.makeEtc(st, rec, facts, &next); err != nil {
			return err
		}
		next.Fstab = fstabPoints(next.Etc)
	}
	if rec.Switch.Verb != verbBack { // a root that is left because it filled the disk is left all the same
		if err := a.stillMeant(ctx, rec); err != nil {
			return err
		}
		rec.Switch.Armed = true
		if err := a.writeSwitch(rec); err != nil {
			return err
		}
	}
	return assembly.Arm(next)
}

var errTakenBack = errors.New("the switch was taken back; nothing is armed")

// stillMeant tells whether the switch is still under way: the guard may have cancelled it since the record was read.
func (a *Agent) stillMeant(ctx context.Context, rec *Record) error {
	now, err := a.readRecord()
	if err != nil {
		return err
	}
	queued, err := a.Machine.PID1.SoftRebootQueued(ctx)
	if err == nil && (!queued || !now.announces(rec.Switch)) {
		err = errTakenBack
	}
	return err
}

// announces tells whether the record says that the host is about to make this very switch.
func (r *Record) announces(s *Switch) bool { return r.Phase == PhaseArmed && r.Switch.At.Equal(s.At) }

// makeEtc merges /etc for a root that is new to this host. One that ran before has its own, untouched.
func (a *Agent) makeEtc(st *store.Store, rec *Record, f facts.Facts, next *assembly.Next) error {
	root, err := st.Root(next.ID)
	if err != nil {
		return err
	}
	return a.withEtc(st, root, f, rec, func(in etc.Inputs) error {
		if rec.Switch.Verb == verbApply {
			if err := a.mergeEtc(in, next.Etc); err != nil {
				return err
			}
		}
		var err error
		next.Owners.UID, next.Owners.GID, err = etc.Numbers(in.Next, next.Etc)
		return err
	})
}

// sinceBoot reads the clock that systemd stamps units with; 0 when there is none.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func removeStamp(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the stamp of an earlier switch: %w", err)
	}
	return nil
}

func (a *Agent) writeStamp(s level.Stamp) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = writeAtomically(a.path(stampFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot leave the stamp of the switch: %w", err)
	}
	return nil
}

// readStamp reads what the arming step left; nil when it left nothing.
func readStamp(file string) *level.Stamp {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var s level.Stamp
	if json.Unmarshal(text, &s) != nil {
		return nil
	}
	return &s
}
