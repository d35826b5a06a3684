package transition

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/stale"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Arm is the last step in the root that is left: the arming unit calls it when every service has stopped. It makes the
// /etc of the new root and arms the root. When that fails, it leaves a stamp with the reason, and the soft reboot
// stays in this root.
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
	begin := m.Machine.Kernel.SinceBoot()
	if err = m.checkGuarded(ctx, rec); err == nil {
		err = armStill(ctx, m, rec)
	}
	if errors.Is(err, errWithdrawn) {
		m.Log.Warn(err.Error())
		return nil
	}
	if rec.Switch.Verb == record.VerbBack || rec.Switch.Verb == record.VerbRollback {
		m.ForgetFailures(ctx)
	}
	stale.Remove(m.Host)
	stamp := level.Stamp{Target: rec.Switch.Target, At: m.Machine.Kernel.SinceBoot()}
	stamp.Took = stamp.At - begin
	if err != nil {
		stamp.Error = err.Error()
	}
	// The journal has stopped, so the stamp carries the reason. A missing stamp is not fatal: an armed root is switched
	// to without it, and what is mounted at / shows that. A failed arming unit would be a failed unit in the new root.
	if serr := m.WriteStamp(stamp); serr != nil {
		m.Log.Warn("cannot leave a stamp", zap.Error(serr))
	}
	if err != nil {
		m.Log.Error("cannot arm the new root; the host stays in this one", zap.Error(err))
	}
	return err
}

// checkGuarded returns an error when no guard runs: without one, a root that hangs could not be rolled back.
func (m *Mover) checkGuarded(ctx context.Context, rec *record.Record) error {
	if rec.Switch.Verb == record.VerbBack { // the host must leave the bad root, guarded or not
		return nil
	}
	active, err := m.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit)
	if err == nil && !active {
		err = fmt.Errorf("%s is not running, so a root that hangs would not be rolled back; try again", pid1.GuardUnit)
	}
	return err
}

// ForgetFailures resets the failure counters of systemd: a service that crashed too often in the bad root would not be
// started in the good one.
func (m *Mover) ForgetFailures(ctx context.Context) {
	if err := m.Machine.Systemd.ForgetFailures(ctx); err != nil {
		m.Log.Warn("cannot reset the failure counters of systemd", zap.Error(err))
	}
}

// ArmTarget makes the /etc of the target of the switch, records that it is armed, and mounts it at /run/nextroot.
func (m *Mover) ArmTarget(ctx context.Context, rec *record.Record) error {
	f, err := m.Machine.Kernel.Facts(ctx)
	if err != nil {
		return err
	}
	m.NotePast(f.Root)
	next := m.Roots.Next(rec.Switch.Target, f)
	if rec.Switch.Verb == record.VerbBack {
		m.MakeWritable(next.Persist, rec.Switch.Kept)
	}
	next.Present, next.Return = rec.Switch.State, rec.Switch.Verb != record.VerbApply
	next.Kept, next.Volatile = rec.Switch.Kept, rec.Switch.Volatile
	if next.ID != switcher.HostRoot {
		if err := roots.CheckIntact(&m.Roots, next.ID, rec.Switch.Verb); err != nil {
			return err
		}
		if next.Owners, err = m.Roots.MakeEtc(rec, f, next); err != nil {
			return err
		}
	}
	roots.CarryUsers(&m.Roots, rec, f, next)
	next = m.Machine.Trees.WithFstab(next, m.Roots.EtcAt(next, f))
	if rec.Switch.Verb != record.VerbBack { // a root may be left because it filled the disk: nothing is written then
		if err := m.checkStillAnnounced(ctx, rec); err != nil {
			return err
		}
		rec.Switch.Armed = true
		if err := m.WriteSwitch(rec); err != nil {
			return err
		}
	}
	return m.Machine.Mounts.Arm(next)
}

var errWithdrawn = errors.New("the switch was withdrawn; nothing is armed")

// checkStillAnnounced returns an errWithdrawn when the guard has cancelled the switch since the record was read.
func (m *Mover) checkStillAnnounced(ctx context.Context, rec *record.Record) error {
	now, err := m.Records.Read()
	if err != nil {
		return err
	}
	queued, err := m.Machine.Systemd.SoftRebootQueued(ctx)
	if err == nil && (!queued || !rec.Switch.AnnouncedBy(now)) {
		err = errWithdrawn
	}
	return err
}
