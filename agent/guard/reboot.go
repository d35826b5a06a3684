package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// This file has the full reboots of the guard.

// fullReboot is the last resort: the kernel reboots at once. The host comes up in its host root, which resumes the
// last good root. What led to it may have taken a while: when the host has switched meanwhile, the next look decides.
func (g *watch) fullReboot(s observation) error {
	if err := stillRuns(g, s); err != nil {
		return err
	}
	noteFullReboot(g, s)
	return g.Machine.Kernel.Reboot()
}

// errSwitched means that another root runs than the one for which the guard decided.
var errSwitched = errors.New("another root runs by now")

// stillRuns returns an errSwitched when the root that was seen does not run any more. A look that fails says nothing.
func stillRuns(g *watch, s observation) error {
	if now, err := g.Machine.Mounts.Mounted(); err == nil && now != s.Mounted {
		return fmt.Errorf("%w: %s", errSwitched, now.Root)
	}
	return nil
}

// leaveKernel leaves a root that was tried on a new kernel by a full reboot. Services stop in order, if systemd does
// that within the time that they have.
func leaveKernel(ctx context.Context, g *watch, s observation) error {
	if g.rebootSince > 0 && s.now-g.rebootSince <= g.shutdown {
		return nil
	}
	if g.rebootSince > 0 { // systemd has not even stopped this unit
		return g.fullReboot(s)
	}
	if now, err := g.readRecord(); err == nil && isJudged(now, g.change, s.Root) {
		g.Log.Warn("the guard does not roll back", zap.Error(errOvertaken))
		return nil
	}
	g.rebootSince = s.now
	noteFullReboot(g, s)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
	defer cancel()
	err := waitAtMost(2*transition.RequestTimeout, func() error { return g.Machine.Systemd.FullRebootNow(ctx) })
	if err != nil {
		return errors.Join(err, g.Machine.Kernel.Reboot())
	}
	return nil
}

// seeReboot watches the full reboot that leaves a new kernel, whoever has asked systemd for it: the kernel reboots at
// once when services take longer to stop than they may. This unit is stopped at the beginning, and the reboot waits for
// it.
func seeReboot(g *watch) error {
	if !g.change.OnNewKernel() || g.leg == legLeaving || g.leg == legReturned {
		return nil
	}
	for begun := g.Machine.Kernel.SinceBoot(); g.Machine.Kernel.SinceBoot()-begun <= g.shutdown; time.Sleep(lookInterval) {
		m, err := g.Machine.Systemd.AskManager(context.Background())
		others := func(unit string) bool { return unit != pid1.GuardUnit }
		if err == nil && (m.State != stopping || !slices.ContainsFunc(m.Stopping, others)) {
			return nil
		}
	}
	g.Log.Error("services do not stop; the kernel reboots at once", event.FullReboot.Field())
	return g.Machine.Kernel.Reboot()
}

// stopping is the state of a systemd that shuts down.
const stopping = "stopping"

// noteFullReboot logs and records a full reboot of the guard.
func noteFullReboot(g *watch, s observation) {
	g.Log.Error("the guard does a full reboot", event.FullReboot.Field(), zap.String("reason", g.reason))
	if rec, at, why := s.copyOfRecord(), g.leg, g.reason; rec != nil {
		err := waitAtMost(diskPatience, func() error { return g.recordFullReboot(rec, at, why) })
		if err != nil {
			g.Log.Warn("cannot record the full reboot", zap.Error(err))
		}
	}
}

// recordFullReboot records a full reboot of the guard, and why. If it cannot, the next command finds that the host
// left a root before it was good.
func (gd *Guard) recordFullReboot(rec *record.Record, at leg, why string) error {
	if at != legLeaving && rec.ArrivedLate(rec.Switch.Target) {
		if err := rec.Advance(record.CauseLate); err != nil {
			return err
		}
	}
	end := endByFullReboot(rec, at, why, gd.Now().UTC())
	if rec.Moving() {
		cause := record.CauseStranded
		if rec.Phase == record.PhaseArmed {
			cause = record.CauseMissed
		}
		if err := rec.Advance(cause); err != nil {
			return err
		}
	}
	switch {
	case end.failed:
		rec.CountFailure(rec.Switch.Target, end.result.Reason)
	case end.bad:
		rec.MarkBad(rec.Switch.Target, record.Bad{Reason: end.result.Reason, At: end.result.At})
	}
	rec.Last = &end.result
	if err := gd.Records.WriteOutcome(rec); err != nil {
		return err
	}
	e := rec.Switch.Event(end.event, rec.Last.Reason)
	if root := rec.Last.Target; e.Root != root { // the switch is the one back: the event is about the root that it leaves
		e = record.Event{
			Event: end.event, Root: root, Version: rec.Accepted[root].Version, Reason: rec.Last.Reason,
		}
	}
	gd.Records.AppendEvent(e)
	if end.failed {
		gd.logFailed(rec, rec.Last.Reason)
	}
	if at != legLeaving {
		gd.Transition.KeepWithdrawn(rec.Last.Target) // after the full reboot, the record shows no trial that was left
	}
	return nil
}

// ending is how a full reboot of the guard ends a switch.
type ending struct {
	result record.Result
	// event is the name of the event for the history.
	event string
	// failed is whether the switch failed before its target ran; bad, whether its target is given up.
	failed, bad bool
}

// endByFullReboot decides how a full reboot ends the switch in the record, by the leg that it comes in and the reason
// for it.
func endByFullReboot(rec *record.Record, at leg, why string, now time.Time) ending {
	target := rec.Switch.Target
	switch {
	case at == legLeaving && !rec.Moving() && rec.Last != nil: // it was cancelled, but PID 1 goes on shutting down
		last := *rec.Last
		last.Reason += "; " + why + "; the guard did a full reboot"
		return ending{result: last, event: record.EventFailed}
	case rec.Switch.Verb == record.VerbBack && rec.Last != nil:
		last := *rec.Last
		last.Reason += "; the soft reboot back did not complete, so the guard did a full reboot"
		return ending{result: last, event: record.EventUnhealthy}
	case at == legLeaving: // the target never ran
		return ending{
			result: record.Result{
				Outcome: level.Stuck, Reason: why + "; the guard did a full reboot", Target: target, At: now,
			},
			event: record.EventFailed, failed: true,
		}
	}
	back := rec.LastGood()
	if back == target { // it was good before; the full reboot lands on the host root
		back = switcher.HostRoot
	}
	return ending{
		result: record.Result{
			Outcome: level.Unhealthy, Reason: why + "; the guard left it by a full reboot", Target: target, At: now,
			Back: back,
		},
		event: record.EventUnhealthy, bad: true,
	}
}
