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

// What a guard does. When it does which is decided in guard.go.

// goBack arms the root that was left, prepared before it was, and asks PID 1 for a soft reboot. Where that does not go,
// the kernel is booted.
func (g *watch) goBack(ctx context.Context, s observation) error {
	g.ask(ctx, s)
	if g.back == nil {
		return g.bootKernel(s)
	}
	g.Log.Error("the root did not become good; the guard goes back",
		zap.String("root", s.Root), zap.String("to", g.back.ID), zap.String("reason", g.why))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.AskTime)
	defer cancel()
	mine, why := s.copyOfRecord(), record.Departure{Reason: g.why, RolledBack: s.verdict.RolledBack}
	err := waitAtMost(transition.AskTime, func() error { return g.returnTo(ctx, s.Mounted, mine, why) })
	if !errors.Is(err, errTookTooLong) { // otherwise the call may still be changing it
		s.record = mine
	}
	if err == nil {
		g.enter(returning, s)
		return nil
	}
	return errors.Join(err, g.Machine.Mounts.Disarm(), g.bootKernel(s))
}

// ask completes the reason by what PID 1 knows, where the root could not say itself what is wrong with it.
func (g *watch) ask(ctx context.Context, s observation) {
	if s.verdict.Reason != "" || s.manager == nil {
		return
	}
	t, err := g.Machine.Systemd.AskTrouble(ctx, g.began())
	if err != nil {
		g.Log.Warn("cannot ask systemd what went wrong", zap.Error(err))
	}
	if known := t.String(); known != "" {
		g.why += "; " + known
	}
}

// began is when the root that is watched began, by the clock that systemd stamps units with. The guard itself may have seen
// it late: its question to a systemd that is starting waits for the answer.
func (g *watch) began() time.Duration {
	if stamp := g.Transition.ReadStamp(); stamp != nil && stamp.Target == g.change.Target && stamp.At > 0 {
		return stamp.At
	}
	return g.since
}

func (g *watch) returnTo(ctx context.Context, left facts.Mounted, rec *record.Record, why record.Departure) error {
	a := g.Guard
	back := record.Switch{Verb: record.VerbBack, Version: g.backVersion, Before: g.change.Before}
	a.Transition.Describe(&back, facts.Facts{Root: left.Root, BootID: g.change.BootID, SoftReboots: g.arrivals()}, g.back.ID)
	g.report(left, rec, back, why)
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

// arrivals is the count of soft reboots in the new root, -1 where systemd does not count.
func (g *watch) arrivals() int {
	if g.change.SoftReboots < 0 {
		return -1
	}
	return g.change.SoftReboots + 1
}

// report tells what the guard does: in /run for whoever comes up next, and in the record if that can be written.
func (g *watch) report(left facts.Mounted, rec *record.Record, back record.Switch, why record.Departure) {
	a := g.Guard
	text, err := json.Marshal(transition.GuardNote{
		Left: left.Root, Version: g.change.Version, Mount: left.Mount, Departure: why, Switch: back,
	})
	if err == nil {
		err = a.Machine.Disk.WriteFile(a.Path(transition.BackFile), text, 0o600)
	}
	if rec != nil && rec.Retreat(record.CauseTakenOver, back, why) == nil {
		err = errors.Join(err, a.Records.WriteOutcome(rec))
	}
	if err != nil {
		a.Log.Warn("cannot tell all of going back", zap.Error(err))
	}
}

// bootKernel is the last resort. The host comes up in its mutable root, which resumes the last good one.
func (g *watch) bootKernel(s observation) error {
	g.Log.Error("the guard boots the kernel", zap.String("reason", g.why))
	if rec, at, why := s.copyOfRecord(), g.stage, g.why; rec != nil {
		err := waitAtMost(diskPatience, func() error { return g.recordBoot(rec, at, why) })
		if err != nil {
			g.Log.Warn("cannot record the boot", zap.Error(err))
		}
	}
	return g.Machine.Kernel.Reboot()
}

// recordBoot writes down that the kernel is booted to get away from a root. If it cannot, the next start finds a root that
// was left before it was good.
func (gd *Guard) recordBoot(rec *record.Record, at stage, why string) error {
	verb, target, now := rec.Switch.Verb, rec.Switch.Target, gd.Now().UTC()
	if at != leaving && rec.ArrivedLate(target) {
		if err := rec.Advance(record.CauseLate); err != nil {
			return err
		}
	}
	cancelled := at == leaving && !rec.Moving() // and PID 1 did not hear of it
	cause := record.CauseStranded
	if rec.Phase == record.PhaseArmed {
		cause = record.CauseMissed
	}
	if !cancelled {
		if err := rec.Advance(cause); err != nil {
			return err
		}
	}
	const booted = "; the kernel was booted to get away from it"
	event := "unhealthy"
	switch {
	case cancelled && rec.Last != nil:
		event, rec.Last.Reason = "failed", rec.Last.Reason+"; "+why+"; the kernel was booted"
	case verb == record.VerbBack && rec.Last != nil:
		rec.Last.Reason += "; the way back did not end, so the kernel was booted"
	case at == leaving: // it never ran
		why += "; the kernel was booted"
		event = record.EventFailed
		rec.CountFailure(target, why)
		rec.Last = &record.Result{Outcome: level.Stuck, Reason: why, Target: target, At: now}
	default:
		rec.MarkBad(target, record.Bad{Reason: why + booted, At: now})
		rec.Last = &record.Result{Outcome: level.Unhealthy, Reason: why + booted, Target: target, At: now, Back: rec.LastGood()}
		if rec.Last.Back == target { // it was good before; the kernel boots the mutable host
			rec.Last.Back = switcher.HostRoot
		}
	}
	if err := gd.Records.WriteOutcome(rec); err != nil {
		return err
	}
	e := rec.Switch.Event(event, rec.Last.Reason)
	if e.Root != rec.Last.Target { // going back from it is what did not end
		e = record.Event{Event: event, Root: rec.Last.Target, Version: rec.Accepted[rec.Last.Target].Version, Reason: rec.Last.Reason}
	}
	gd.Records.Tell(e)
	return nil
}

// unjam ends a shutdown that a unit holds up, as [switch] stuck says.
func (g *watch) unjam(ctx context.Context, s observation) error {
	why := fmt.Sprintf("the shutdown was not done within %v: %s", g.shutdown, stopping(s))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.AskTime)
	defer cancel()
	switch {
	case g.stage == returning: // there is nothing to stay for in a root that is no good
		return g.killStopping(ctx, s, why)
	case g.cancelling || g.Config.Switch.Stuck == config.StuckCancel:
		return g.cancel(ctx, s, why)
	}
	return g.escalate(ctx, s, why)
}

// killStopping kills what does not stop. The next step, if there must be one, comes after a moment.
func (g *watch) killStopping(ctx context.Context, s observation, why string) error {
	g.Log.Error("the shutdown is stuck; what does not stop is killed", zap.String("reason", why))
	g.kills++
	g.since = s.now - g.shutdown + killGrace
	return g.Machine.Systemd.KillUnits(ctx, slices.DeleteFunc(slices.Clone(s.manager.Stopping), func(unit string) bool { return unit == pid1.ArmUnit }))
}

func stopping(s observation) string {
	if len(s.manager.Stopping) == 0 {
		return "no unit is stopping, and systemd does not go on"
	}
	return "still stopping: " + strings.Join(s.manager.Stopping, ", ")
}

// cancel takes the shutdown back. The root that may be armed already goes first: PID 1 may be about to move into it. Then
// the record: the arming unit does nothing when it does not announce a switch.
func (g *watch) cancel(ctx context.Context, s observation, why string) error {
	a := g.Guard
	a.Log.Error("the shutdown is stuck and cancelled", zap.String("reason", why))
	if err := g.Machine.Mounts.Disarm(); err != nil {
		a.Log.Warn("PID 1 may still move into the new root", zap.Error(err))
	}
	// A record that cannot be written is put right by the next command: the switch has not happened.
	if !g.cancelling {
		rec := s.copyOfRecord()
		err := waitAtMost(diskPatience, func() error { return a.recordCancel(rec, why+"; it was cancelled") })
		if err != nil {
			a.Log.Warn("cannot record that the shutdown was cancelled", zap.Error(err))
		}
	}
	g.cancelling = true
	left, err := a.Machine.Systemd.CancelShutdown(ctx, g.active)
	if err != nil { // it is tried again
		return err
	}
	g.cancelling = false
	if len(left) > 0 {
		a.Log.Warn("these units are still stopping and were left to it", zap.Strings("units", left))
	}
	// The arming unit first: when it has ended, nothing arms any more.
	return errors.Join(a.Machine.Systemd.ReleaseArmUnit(ctx), g.Machine.Mounts.Disarm(), g.Machine.Mounts.Clear())
}

func (gd *Guard) recordCancel(rec *record.Record, why string) error {
	if rec == nil {
		return errors.New("it cannot be read")
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

// escalate kills what holds the shutdown up; then has PID 1 go on without it; at last it boots the kernel.
func (g *watch) escalate(ctx context.Context, s observation, why string) error {
	a := g.Guard
	if g.kills == 0 {
		return g.killStopping(ctx, s, why)
	}
	a.Log.Error("the shutdown is stuck still", zap.String("reason", why))
	g.kills++
	g.since = s.now - g.shutdown + killGrace
	if g.kills == 2 {
		if s.record == nil {
			return errors.New("cannot arm the new root: the record cannot be read")
		}
		if err := a.Transition.ArmNow(ctx, s.record); err != nil {
			return err
		}
		err := a.Transition.WriteStamp(level.Stamp{Target: g.change.Target, At: a.Machine.Kernel.SinceBoot()})
		return errors.Join(err, a.Machine.Systemd.SoftRebootHard(ctx))
	}
	g.why = why
	return g.bootKernel(s)
}

// withdraw takes back a switch that was announced and never began: its agent was killed before it asked, or somebody
// cancelled the shutdown. Otherwise the next soft reboot, whoever wants it, would make the switch with nobody to watch it.
func (g *watch) withdraw(ctx context.Context) error {
	a := g.Guard
	unlock, err := a.Lock(ctx, "guard", false)
	if errors.Is(err, record.ErrBusy) { // a command that is at work may take it back, or ask for it still
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	underWay, err := a.Machine.Systemd.ShuttingDown(ctx)
	if err != nil || underWay { // logind may wait for somebody who asked for a moment
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
