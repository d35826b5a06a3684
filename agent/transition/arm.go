package transition

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Arm is the last thing that runs in the root that is left: the arming unit calls it when every service has stopped.
// It makes the new root's /etc and arms the root, or leaves a stamp that says why not; systemd then stays here.
func (m *Mover) Arm(ctx context.Context) error {
	rec, err := m.Records.Read()
	if err != nil || rec.Phase != record.PhaseArmed {
		return err
	}
	queued, err := m.Machine.Systemd.SoftRebootQueued(ctx)
	if err != nil {
		return err
	}
	if !queued { // another kind of shutdown, or the unit was stopped by hand
		return nil
	}
	if err = m.guarded(ctx, rec); err == nil {
		err = m.ArmNow(ctx, rec)
	}
	if errors.Is(err, errTakenBack) {
		m.Log.Warn(err.Error())
		return nil
	}
	if rec.Switch.Verb == record.VerbBack || rec.Switch.Verb == record.VerbRollback {
		m.ForgetFailures(ctx)
	}
	stamp := level.Stamp{Target: rec.Switch.Target, At: m.Machine.Kernel.SinceBoot()}
	if err != nil {
		stamp.Error = err.Error()
	}
	// The stamp is what will be read: the journal has stopped, too. A root that is armed is gone to without it, and what is
	// mounted at / then tells the rest: no failed unit is to meet it there.
	if serr := m.WriteStamp(stamp); serr != nil {
		m.Log.Warn("cannot leave a stamp", zap.Error(serr))
	}
	if err != nil {
		m.Log.Error("cannot arm the new root; the host stays in this one", zap.Error(err))
	}
	return err
}

// guarded refuses a switch that nobody watches: there would be no way back from a root that is dead.
func (m *Mover) guarded(ctx context.Context, rec *record.Record) error {
	if rec.Switch.Verb == record.VerbBack { // from the root that is dead
		return nil
	}
	active, err := m.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit)
	if err == nil && !active {
		err = fmt.Errorf("%s has ended, and nobody would come back from a root that is dead", pid1.GuardUnit)
	}
	return err
}

// ForgetFailures has systemd forget what the root that is left did wrong: a service that crashed too often there would not be
// started in the good one.
func (m *Mover) ForgetFailures(ctx context.Context) {
	if err := m.Machine.Systemd.ForgetFailures(ctx); err != nil {
		m.Log.Warn("cannot clear the failures of the root that is left", zap.Error(err))
	}
}

func (m *Mover) ArmNow(ctx context.Context, rec *record.Record) error {
	f, err := m.Machine.Kernel.Facts(ctx)
	if err != nil {
		return err
	}
	m.NotePast(f.Root)
	next := m.Roots.Next(rec.Switch.Target, f)
	if next.ID != switcher.HostRoot {
		if next.Owners, err = m.Roots.MakeEtc(rec, f, next); err != nil {
			return err
		}
		next.Fstab = m.Machine.Trees.FstabPoints(next.Etc)
	}
	if rec.Switch.Verb != record.VerbBack { // a root that is left because it filled the disk is left all the same
		if err := m.stillMeant(ctx, rec); err != nil {
			return err
		}
		rec.Switch.Armed = true
		if err := m.WriteSwitch(rec); err != nil {
			return err
		}
	}
	return m.Machine.Mounts.Arm(next)
}

var errTakenBack = errors.New("the switch was taken back; nothing is armed")

// stillMeant tells whether the switch is still under way: the guard may have cancelled it since the record was read.
func (m *Mover) stillMeant(ctx context.Context, rec *record.Record) error {
	now, err := m.Records.Read()
	if err != nil {
		return err
	}
	queued, err := m.Machine.Systemd.SoftRebootQueued(ctx)
	if err == nil && (!queued || !rec.Switch.AnnouncedBy(now)) {
		err = errTakenBack
	}
	return err
}
