package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// This file has what the guard does; guard.go decides when.

// rollBack arms the old root, which was prepared before it was left, and requests a soft reboot from PID 1. When that
// fails, a full reboot follows.
func (g *watch) rollBack(ctx context.Context, s observation) error {
	g.addTrouble(ctx, s)
	if g.back == nil {
		return g.fullReboot(s)
	}
	news := event.Unhealthy.Field()
	if s.verdict.Reason != "" { // who has judged has said so
		news = zap.Skip()
	}
	g.Log.Error("the root did not become good; the guard rolls back", news, zap.String("root", s.Root),
		zap.String("version", g.change.Version), zap.String("to", g.back.ID), zap.String("reason", g.reason))
	if g.change.OnNewKernel() { // a full reboot starts the kernel before it
		return leaveKernel(ctx, g, s)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
	defer cancel()
	rec, why := s.copyOfRecord(), record.Departure{Reason: g.reason, RolledBack: s.verdict.RolledBack}
	// An answer that is lost takes the time of ctx, and then that of a second look.
	err := waitAtMost(2*transition.RequestTimeout, func() error { return g.switchBack(ctx, s.Mounted, rec, why) })
	if !errors.Is(err, errTookTooLong) { // a call that goes on may still change rec
		s.record = rec
	}
	if errors.Is(err, errOvertaken) {
		g.Log.Warn("the guard does not roll back", zap.Error(err))
		return nil
	}
	if err == nil {
		g.enterLeg(legReturning, s)
		return nil
	}
	return errors.Join(err, g.Machine.Mounts.Disarm(), g.fullReboot(s))
}

// addTrouble adds to the reason what PID 1 knows, unless confirm has written a verdict.
func (g *watch) addTrouble(ctx context.Context, s observation) {
	if s.verdict.Reason != "" || s.manager == nil {
		return
	}
	t, err := g.Machine.Systemd.AskTrouble(ctx, g.rootBeganAt())
	if err != nil {
		g.Log.Warn("cannot ask systemd what went wrong", zap.Error(err))
	}
	if trouble := t.String(); trouble != "" {
		g.reason += "; " + trouble
	}
}

// rootBeganAt returns the uptime at which the new root began, by the clock of systemd's unit timestamps. It prefers
// the stamp: the guard may notice the new root late, because a systemd that is starting answers late.
func (g *watch) rootBeganAt() time.Duration {
	if stamp := g.Transition.ReadStamp(); stamp != nil && stamp.Target == g.change.Target && stamp.At > 0 {
		return stamp.At
	}
	return g.legSince
}

// switchBack reports the rollback, arms the old root and requests the soft reboot into it.
func (g *watch) switchBack(ctx context.Context, left facts.Mounted, rec *record.Record, why record.Departure) error {
	a := g.Guard
	back := record.Switch{
		Verb: record.VerbBack, Version: g.backVersion, Before: g.change.Before, State: g.back.Present,
		Kept: g.back.Kept, Units: g.change.Units,
	}
	now := facts.Facts{Root: left.Root, BootID: g.change.BootID, SoftReboots: g.arrivals()}
	a.Transition.Describe(&back, now, g.back.ID)
	if err := g.leaveNote(left, rec, back, why); err != nil {
		return err
	}
	a.Transition.MakeWritable(g.back.Persist, g.change.Kept)
	if err := a.Transition.RemoveStamp(); err != nil {
		return err
	}
	if err := a.Machine.Mounts.Arm(*g.back); err != nil {
		return err
	}
	a.Transition.ForgetFailures(ctx)
	a.Transition.Keep.Hold(ctx, back.Units)
	stamped := a.Transition.WriteStamp(level.Stamp{Target: g.back.ID, At: a.Machine.Kernel.SinceBoot()})
	err := a.Transition.UnlessUnderWay(ctx, a.Machine.Systemd.SoftRebootNow(ctx))
	if err == nil { // the next command that reads the note adds this to the history
		a.Log.Info("switching", event.Switching.Field(), zap.String("from", left.Root), zap.String("root", back.Target),
			zap.String("version", back.Version), zap.String("verb", back.Verb), zap.String("level", string(back.Level)))
	}
	return errors.Join(stamped, err)
}

// arrivals returns the count of soft reboots in the new root, -1 when systemd does not count them.
func (g *watch) arrivals() int {
	if g.change.SoftReboots < 0 {
		return -1
	}
	return g.change.SoftReboots + 1
}

// leaveNote writes down the rollback: as a note in /run, for the commands in the next root, and in the record if it
// can be written. It returns an errOvertaken, and leaves no note, when the root is no longer being tried.
func (g *watch) leaveNote(left facts.Mounted, rec *record.Record, back record.Switch, why record.Departure) error {
	a := g.Guard
	text, err := json.Marshal(transition.GuardNote{
		Left: left.Root, Version: g.change.Version, Mount: left.Mount, Departure: why, Switch: back,
	})
	if err == nil {
		err = a.Machine.Disk.WriteFile(a.Path(transition.GuardNoteFile), text, 0o600)
	}
	if rec != nil {
		// While the note is there, confirm marks no root good. Before, it may have done so since the record was read.
		if now, err := g.readRecord(); err == nil {
			*rec = *now
		}
		if isJudged(rec, g.change, left.Root) {
			return errors.Join(errOvertaken, a.Machine.Disk.Remove(a.Path(transition.GuardNoteFile)))
		}
		if rec.BeginRollback(record.CauseTakenOver, back, why) == nil {
			err = errors.Join(err, a.Records.WriteOutcome(rec))
		}
	}
	if err != nil {
		a.Log.Warn("cannot write down the rollback", zap.Error(err))
	}
	return nil
}

// isJudged reports whether a root that was tried by a switch is not any more.
func isJudged(rec *record.Record, change record.Switch, root string) bool {
	return !rec.Switch.At.Equal(change.At) || !rec.Moving() && !rec.ArrivedLate(root)
}

// errOvertaken means that the root is no longer being tried: confirm marked it good, or rolls it back itself.
var errOvertaken = errors.New("the root was judged meanwhile")

// unjam cancels or escalates a stuck shutdown, as [switch] stuck says. It always escalates while a bad root is being
// left.
func (g *watch) unjam(ctx context.Context, s observation) error {
	if err := stillRuns(g, s); err != nil {
		return err
	}
	why := fmt.Sprintf("the shutdown was not done within %v: %s", g.shutdown, stoppingUnits(s))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
	defer cancel()
	switch {
	case g.leg == legReturning:
		return g.killStopping(ctx, s, why)
	case g.cancellingSince > 0 || g.Config.Switch.Stuck == config.StuckCancel:
		return g.cancel(ctx, s, why)
	}
	return g.escalate(ctx, s, why)
}

// killStopping kills the units that do not stop, but not the arming unit. The guard waits killGrace before it
// escalates further.
func (g *watch) killStopping(ctx context.Context, s observation, why string) error {
	g.Log.Error("the shutdown is stuck; killing the units that do not stop", zap.String("reason", why))
	g.escalated++
	g.legSince = s.now - g.shutdown + killGrace
	units := slices.DeleteFunc(slices.Clone(s.manager.Stopping), func(unit string) bool { return unit == pid1.ArmUnit })
	return g.Machine.Systemd.KillUnits(ctx, units)
}

// stoppingUnits returns which units hold the shutdown up, for the reason of a failed switch.
func stoppingUnits(s observation) string {
	if len(s.manager.Stopping) == 0 {
		return "no unit is stopping, but systemd does not continue"
	}
	return "still stopping: " + strings.Join(s.manager.Stopping, ", ")
}

// cancel cancels the shutdown. First it disarms the new root, because PID 1 may be about to switch to it. Then it
// withdraws the switch in the record, so that the arming unit does nothing.
func (g *watch) cancel(ctx context.Context, s observation, why string) error {
	a := g.Guard
	a.Log.Error("the shutdown is stuck; cancelling it", zap.String("reason", why))
	if err := g.Machine.Mounts.Disarm(); err != nil {
		a.Log.Warn("systemd may still switch to the new root", zap.Error(err))
	}
	// If the record cannot be written, the next command corrects it: it sees that the switch has not happened.
	if g.cancellingSince == 0 {
		g.cancellingSince, g.reason = s.now, why+"; it was cancelled"
		rec, why := s.copyOfRecord(), g.reason
		if err := waitAtMost(diskPatience, func() error { return a.recordCancel(rec, why) }); err != nil {
			a.Log.Warn("cannot record that the shutdown was cancelled", zap.Error(err))
		}
	}
	// Commands that systemd starts again wait until the record is right.
	if unlock, err := a.Lock(ctx, "guard", false); err == nil {
		defer unlock()
	}
	change := g.change
	restore := func() error { return a.Machine.Mounts.Restore(change.Kept, roots.HostMount) }
	if err := waitAtMost(diskPatience, restore); err != nil {
		a.Log.Warn("state of this host is not mounted any more", zap.Error(err))
	}
	if !g.unitsReleased { // before services start that get their sockets from systemd; once, as systemd is busy with it
		g.unitsReleased = true
		a.Transition.Keep.Release(ctx, change.Units)
	}
	left, err := a.Machine.Systemd.CancelShutdown(ctx, g.activeUnits)
	if err != nil { // the next step tries again
		return err
	}
	g.cancellingSince = 0
	if len(left) > 0 {
		a.Log.Warn("these units are still stopping; they are not started again", zap.Strings("units", left))
	}
	// The arming unit must end first: it could arm the root again.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), armTime)
	defer done()
	why = g.reason
	err = waitAtMost(armTime, func() error { return a.Transition.EndArming(ctx, change, why) })
	return errors.Join(err, g.Machine.Mounts.Disarm(), g.Machine.Mounts.Clear())
}

// recordCancel records that a switch was cancelled because its shutdown was stuck.
func (gd *Guard) recordCancel(rec *record.Record, why string) error {
	if rec == nil {
		return errors.New("the record cannot be read")
	}
	if err := gd.Transition.RecordWithdrawal(rec, why); err != nil {
		return err
	}
	gd.Records.AppendEvent(rec.Switch.Event(record.EventFailed, why))
	gd.logFailed(rec, why)
	return nil
}

// logFailed writes into the log that a switch ended before its root ran.
func (gd *Guard) logFailed(rec *record.Record, why string) {
	gd.Log.Info("the switch failed", event.SwitchFailed.Field(), zap.String("root", rec.Switch.Target),
		zap.String("version", rec.Switch.Version), zap.String("verb", rec.Switch.Verb), zap.String("reason", why))
}

// escalate takes the next step against a stuck shutdown: it kills the units that do not stop, then arms the root
// itself and has PID 1 soft-reboot without waiting for them, and at last it does a full reboot.
func (g *watch) escalate(ctx context.Context, s observation, why string) error {
	a := g.Guard
	if g.escalated == 0 {
		return g.killStopping(ctx, s, why)
	}
	a.Log.Error("the shutdown is still stuck", zap.String("reason", why))
	g.escalated++
	g.legSince = s.now - g.shutdown + killGrace
	if g.escalated == 2 {
		rec := s.copyOfRecord()
		if rec == nil {
			return errors.New("cannot arm the new root: the record cannot be read")
		}
		return waitAtMost(transition.RequestTimeout, func() error { return a.switchHard(ctx, rec) })
	}
	g.reason = why
	return g.fullReboot(s)
}

// switchHard arms the new root and has PID 1 soft-reboot without waiting for the units that do not stop. When ctx ends
// before, it requests nothing any more.
func (gd *Guard) switchHard(ctx context.Context, rec *record.Record) error {
	if err := gd.Transition.ArmTarget(ctx, rec); err != nil {
		return err
	}
	err := gd.Transition.WriteStamp(level.Stamp{Target: rec.Switch.Target, At: gd.Machine.Kernel.SinceBoot()})
	return errors.Join(err, gd.Machine.Systemd.SoftRebootHard(ctx))
}

// withdraw withdraws a switch that was announced and never began: its agent was killed before it requested the reboot,
// or somebody cancelled the shutdown. Otherwise the next soft reboot, whoever requests it, would make the switch
// without a guard.
func (g *watch) withdraw(ctx context.Context) error {
	a := g.Guard
	unlock, err := a.Lock(ctx, "guard", false)
	if errors.Is(err, record.ErrBusy) { // a running command may withdraw the switch, or still request it
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	underWay, err := a.Machine.Systemd.ShuttingDown(ctx)
	if err != nil || underWay { // logind may be waiting for delay inhibitors
		return err
	}
	f, rec, err := a.Look(ctx)
	if err != nil || !g.change.AnnouncedBy(rec) {
		return err
	}
	// A soft reboot that came back to the same root has failed: confirm records that, and counts it.
	if outcome, _ := level.Prove(g.change.Expectation, f, a.Transition.ReadStamp()); outcome != level.Pending {
		return nil
	}
	return a.Transition.Withdraw(ctx, rec)
}
