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
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
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
	g.Log.Error("the root did not become good; the guard rolls back",
		zap.String("root", s.Root), zap.String("to", g.back.ID), zap.String("reason", g.reason))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
	defer cancel()
	rec, why := s.copyOfRecord(), record.Departure{Reason: g.reason, RolledBack: s.verdict.RolledBack}
	err := waitAtMost(transition.RequestTimeout, func() error { return g.switchBack(ctx, s.Mounted, rec, why) })
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
	}
	now := facts.Facts{Root: left.Root, BootID: g.change.BootID, SoftReboots: g.arrivals()}
	a.Transition.Describe(&back, now, g.back.ID)
	if err := g.leaveNote(left, rec, back, why); err != nil {
		return err
	}
	for _, p := range g.back.Persist {
		if err := a.Machine.Mounts.MakeWritable(p); err != nil && !errors.Is(err, unix.ENOENT) {
			a.Log.Warn("cannot make the state writable", zap.String("path", p), zap.Error(err))
		}
	}
	if err := a.Transition.RemoveStamp(); err != nil {
		return err
	}
	if err := a.Machine.Mounts.Arm(*g.back); err != nil {
		return err
	}
	a.Transition.ForgetFailures(ctx)
	err := a.Transition.WriteStamp(level.Stamp{Target: g.back.ID, At: a.Machine.Kernel.SinceBoot()})
	return errors.Join(err, a.Machine.Systemd.SoftRebootNow(ctx))
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
		if !rec.Switch.At.Equal(g.change.At) || !rec.Moving() && !rec.ArrivedLate(left.Root) {
			return errors.Join(errOvertaken, a.Machine.Disk.Remove(a.Path(transition.GuardNoteFile)))
		}
		if rec.Retreat(record.CauseTakenOver, back, why) == nil {
			err = errors.Join(err, a.Records.WriteOutcome(rec))
		}
	}
	if err != nil {
		a.Log.Warn("cannot write down the rollback", zap.Error(err))
	}
	return nil
}

// errOvertaken means that the root is no longer being tried: confirm marked it good, or rolls it back itself.
var errOvertaken = errors.New("the root was judged meanwhile")

// fullReboot is the last resort: the kernel reboots at once. The host comes up in its host root, which resumes the
// last good root.
func (g *watch) fullReboot(s observation) error {
	g.Log.Error("the guard does a full reboot", zap.String("reason", g.reason))
	if rec, at, why := s.copyOfRecord(), g.leg, g.reason; rec != nil {
		err := waitAtMost(diskPatience, func() error { return g.recordFullReboot(rec, at, why) })
		if err != nil {
			g.Log.Warn("cannot record the full reboot", zap.Error(err))
		}
	}
	return g.Machine.Kernel.Reboot()
}

// recordFullReboot records a full reboot of the guard, and why. If it cannot, the next command finds that the host
// left a root before it was good.
func (gd *Guard) recordFullReboot(rec *record.Record, at leg, why string) error {
	verb, target, now := rec.Switch.Verb, rec.Switch.Target, gd.Now().UTC()
	if at != legLeaving && rec.ArrivedLate(target) {
		if err := rec.Advance(record.CauseLate); err != nil {
			return err
		}
	}
	cancelled := at == legLeaving && !rec.Moving() // but PID 1 goes on shutting down
	cause := record.CauseStranded
	if rec.Phase == record.PhaseArmed {
		cause = record.CauseMissed
	}
	if !cancelled {
		if err := rec.Advance(cause); err != nil {
			return err
		}
	}
	const rebooted = "; the guard left it by a full reboot"
	event := record.EventUnhealthy
	switch {
	case cancelled && rec.Last != nil:
		event, rec.Last.Reason = record.EventFailed, rec.Last.Reason+"; "+why+"; the guard did a full reboot"
	case verb == record.VerbBack && rec.Last != nil:
		rec.Last.Reason += "; the soft reboot back did not complete, so the guard did a full reboot"
	case at == legLeaving: // the target never ran
		why += "; the guard did a full reboot"
		event = record.EventFailed
		rec.CountFailure(target, why)
		rec.Last = &record.Result{Outcome: level.Stuck, Reason: why, Target: target, At: now}
	default:
		rec.MarkBad(target, record.Bad{Reason: why + rebooted, At: now})
		rec.Last = &record.Result{
			Outcome: level.Unhealthy, Reason: why + rebooted, Target: target, At: now, Back: rec.LastGood(),
		}
		if rec.Last.Back == target { // it was good before; the full reboot lands on the host root
			rec.Last.Back = switcher.HostRoot
		}
	}
	if err := gd.Records.WriteOutcome(rec); err != nil {
		return err
	}
	e := rec.Switch.Event(event, rec.Last.Reason)
	if root := rec.Last.Target; e.Root != root { // the switch is the one back: the event is about the root that it leaves
		e = record.Event{Event: event, Root: root, Version: rec.Accepted[root].Version, Reason: rec.Last.Reason}
	}
	gd.Records.Tell(e)
	return nil
}

// unjam cancels or escalates a stuck shutdown, as [switch] stuck says. It always escalates while a bad root is being
// left.
func (g *watch) unjam(ctx context.Context, s observation) error {
	why := fmt.Sprintf("the shutdown was not done within %v: %s", g.shutdown, stoppingUnits(s))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
	defer cancel()
	switch {
	case g.leg == legReturning:
		return g.killStopping(ctx, s, why)
	case g.cancelling || g.Config.Switch.Stuck == config.StuckCancel:
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
	if !g.cancelling {
		rec := s.copyOfRecord()
		err := waitAtMost(diskPatience, func() error { return a.recordCancel(rec, why+"; it was cancelled") })
		if err != nil {
			a.Log.Warn("cannot record that the shutdown was cancelled", zap.Error(err))
		}
	}
	g.cancelling = true
	left, err := a.Machine.Systemd.CancelShutdown(ctx, g.activeUnits)
	if err != nil { // the next step tries again
		return err
	}
	g.cancelling = false
	if len(left) > 0 {
		a.Log.Warn("these units are still stopping; they are not started again", zap.Strings("units", left))
	}
	// The arming unit must end first: it could arm the root again.
	return errors.Join(a.Machine.Systemd.ReleaseArmUnit(ctx), g.Machine.Mounts.Disarm(), g.Machine.Mounts.Clear())
}

// recordCancel records that a switch was cancelled because its shutdown was stuck.
func (gd *Guard) recordCancel(rec *record.Record, why string) error {
	if rec == nil {
		return errors.New("the record cannot be read")
	}
	target := rec.Switch.Target
	if err := rec.Advance(record.CauseWithdrawn); err != nil {
		return err
	}
	rec.CountFailure(target, why)
	rec.Last = &record.Result{Outcome: level.Stuck, Reason: why, Target: target, At: gd.Now().UTC()}
	if err := gd.Records.Write(rec); err != nil {
		return err
	}
	gd.Records.Tell(rec.Switch.Event(record.EventFailed, why))
	return nil
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
		if s.record == nil {
			return errors.New("cannot arm the new root: the record cannot be read")
		}
		if err := a.Transition.ArmTarget(ctx, s.record); err != nil {
			return err
		}
		err := a.Transition.WriteStamp(level.Stamp{Target: g.change.Target, At: a.Machine.Kernel.SinceBoot()})
		return errors.Join(err, a.Machine.Systemd.SoftRebootHard(ctx))
	}
	g.reason = why
	return g.fullReboot(s)
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
	a.Log.Warn("the switch has not begun; it is taken back", zap.String("root", g.change.Target))
	if err := rec.Advance(record.CauseWithdrawn); err != nil {
		return err
	}
	rec.ForgiveAttempt(g.change.Target)
	return errors.Join(a.Records.Write(rec), a.Machine.Systemd.ReleaseArmUnit(ctx))
}
