package transition

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Arm is the last thing that runs in the root that is left: the arming unit calls it when every service has stopped.
// It makes the new root's /etc and arms the root, or leaves a stamp that says why not; systemd then stays here.
func (mv *Mover) Arm(ctx context.Context) error {
	rec, err := mv.Records.Read()
	if err != nil || rec.Phase != record.PhaseArmed {
		return err
	}
	queued, err := mv.Machine.PID1.SoftRebootQueued(ctx)
	if err != nil {
		return err
	}
	if !queued { // another kind of shutdown, or the unit was stopped by hand
		return nil
	}
	if err = mv.guarded(ctx, rec); err == nil {
		err = mv.ArmNow(ctx, rec)
	}
	if errors.Is(err, errTakenBack) {
		mv.Log.Warn(err.Error())
		return nil
	}
	if rec.Switch.Verb == record.VerbBack || rec.Switch.Verb == record.VerbRollback {
		mv.ForgetFailures(ctx)
	}
	stamp := level.Stamp{Target: rec.Switch.Target, At: host.SinceBoot()}
	if err != nil {
		stamp.Error = err.Error()
	}
	// The stamp is what will be read: the journal has stopped, too. A root that is armed is gone to without it, and what is
	// mounted at / then tells the rest: no failed unit is to meet it there.
	if serr := mv.WriteStamp(stamp); serr != nil {
		mv.Log.Warn("cannot leave a stamp", zap.Error(serr))
	}
	if err != nil {
		mv.Log.Error("cannot arm the new root; the host stays in this one", zap.Error(err))
	}
	return err
}

// guarded refuses a switch that nobody watches: there would be no way back from a root that is dead.
func (mv *Mover) guarded(ctx context.Context, rec *record.Record) error {
	if rec.Switch.Verb == record.VerbBack { // from the root that is dead
		return nil
	}
	active, err := mv.Machine.PID1.UnitActive(ctx, pid1.GuardUnit)
	if err == nil && !active {
		err = fmt.Errorf("%s has ended, and nobody would come back from a root that is dead", pid1.GuardUnit)
	}
	return err
}

// ForgetFailures has systemd forget what the root that is left did wrong: a service that crashed too often there would not be
// started in the good one.
func (mv *Mover) ForgetFailures(ctx context.Context) {
	if err := mv.Machine.PID1.ForgetFailures(ctx); err != nil {
		mv.Log.Warn("cannot clear the failures of the root that is left", zap.Error(err))
	}
}

func (mv *Mover) ArmNow(ctx context.Context, rec *record.Record) error {
	facts, err := mv.Machine.Facts(ctx)
	if err != nil {
		return err
	}
	st, err := mv.Roots.OpenStore()
	if err != nil {
		return err
	}
	mv.NotePast(facts.Root)
	next := mv.Roots.Next(st, rec.Switch.Target, facts)
	if next.ID != switcher.HostRoot {
		if err := mv.Roots.MakeEtc(st, rec, facts, &next); err != nil {
			return err
		}
		next.Fstab = roots.FstabPoints(next.Etc)
	}
	if rec.Switch.Verb != record.VerbBack { // a root that is left because it filled the disk is left all the same
		if err := mv.stillMeant(ctx, rec); err != nil {
			return err
		}
		rec.Switch.Armed = true
		if err := mv.WriteSwitch(rec); err != nil {
			return err
		}
	}
	return assembly.Arm(next)
}

var errTakenBack = errors.New("the switch was taken back; nothing is armed")

// stillMeant tells whether the switch is still under way: the guard may have cancelled it since the record was read.
func (mv *Mover) stillMeant(ctx context.Context, rec *record.Record) error {
	now, err := mv.Records.Read()
	if err != nil {
		return err
	}
	queued, err := mv.Machine.PID1.SoftRebootQueued(ctx)
	if err == nil && (!queued || !now.Announces(rec.Switch)) {
		err = errTakenBack
	}
	return err
}
