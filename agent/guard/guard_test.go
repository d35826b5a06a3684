package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// TestGuardKeepsCancelling: once the record says that the host stays, the guard cancels until PID 1 does. When that
// takes too long, it does a full reboot: the services are down.
func TestGuardKeepsCancelling(t *testing.T) {
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseStaged
	g := &watch{
		change: *r.Switch, leg: legLeaving, mount: 1, cancellingSince: time.Hour, shutdown: time.Minute,
		health: time.Minute,
	}
	down := &pid1.Manager{State: "stopping", SoftReboot: true}
	at := func(mount int, m *pid1.Manager, after time.Duration) observation {
		return observation{
			Mounted: facts.Mounted{Root: "v1", Mount: mount}, now: time.Hour + after, record: r, manager: m,
		}
	}
	for _, want := range []struct {
		observation
		act
	}{
		{at(1, down, 0), actUnjam}, {at(1, nil, time.Second), actWait}, {at(1, down, cancelLimit), actUnjam},
		{at(1, down, cancelLimit+1), actFullReboot}, {at(2, down, cancelLimit+1), actEnd},
	} {
		if got := g.nextAct(want.observation); got != want.act {
			t.Fatalf("%q, want %q", got, want.act)
		}
	}
}

// blindMounts are mounts of which the one at / can be looked at only once.
type blindMounts struct {
	machine.Mounts
	looks *int
}

func (m blindMounts) Mounted() (facts.Mounted, error) {
	*m.looks++
	if *m.looks > 1 {
		return facts.Mounted{}, errors.New("out of memory")
	}
	return facts.Mounted{Root: "v2", Mount: 7}, nil
}

// deafSystemd is a systemd that does not answer.
type deafSystemd struct{ machine.Systemd }

func (deafSystemd) AskManager(context.Context) (pid1.Manager, error) {
	return pid1.Manager{}, errors.New("no answer")
}

// TestBlindLook: a look at / that fails shows what the one before showed, and not a root without a name.
func TestBlindLook(t *testing.T) {
	gd := newGuard(t)
	gd.Machine.Mounts, gd.Machine.Systemd = blindMounts{looks: new(int)}, deafSystemd{}
	g := &watch{Guard: gd}
	for range 2 {
		if s := g.observe(t.Context()); s.Root != "v2" || s.Mount != 7 {
			t.Errorf("a look shows %+v", s.Mounted)
		}
	}
}

// TestArmTime: the guard waits a little longer for the arming unit than systemd does.
func TestArmTime(t *testing.T) {
	want := fmt.Sprintf("\nTimeoutStopSec=%d\n", int((armTime - 5*time.Second).Seconds()))
	if unit := configs.Units()[pid1.ArmUnit]; !strings.Contains(unit, want) {
		t.Errorf("%s has no %q:\n%s", pid1.ArmUnit, want, unit)
	}
}

// TestGuardRebootsBeforeTheSwitch: a root that never ran is not marked bad because the one before it hangs, and a root
// that is being resumed is not reported as the one that was rolled back to.
func TestGuardRebootsBeforeTheSwitch(t *testing.T) {
	gd := newGuard(t)
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseArmed
	if err := gd.recordFullReboot(r, legLeaving, "systemd has not answered"); err != nil {
		t.Fatal(err)
	}
	if len(r.Bad) != 0 || r.Failed["v2"].Times != 1 || r.Last.Outcome != level.Stuck || r.Last.Back != "" {
		t.Errorf("%+v, %+v", r, r.Last)
	}
	r.Phase = record.PhaseStaged // it was cancelled, but PID 1 goes on shutting down
	err := gd.recordFullReboot(r, legLeaving, "systemd has not answered")
	if err != nil || r.Failed["v2"].Times != 1 || r.Phase != record.PhaseStaged ||
		!strings.Contains(r.Last.Reason, "; systemd has not answered; the guard did a full reboot") {
		t.Errorf("%+v, %+v (%v)", r, r.Last, err)
	}
	events, err := gd.Records.History()
	if err != nil || len(events) != 2 || events[0].Event != "failed" || events[1].Event != "failed" {
		t.Errorf("the history is %+v (%v)", events, err)
	}
	r = hosttest.OnTheWay(record.VerbResume, "host", "v2", "host", "v2")
	r.Phase = record.PhaseTrying
	if err := gd.recordFullReboot(r, legTrying, "systemd has not answered"); err != nil {
		t.Fatal(err)
	}
	if r.Last.Back != switcher.HostRoot || !slices.Contains(r.Good, "v2") {
		t.Errorf("%+v, %+v", r, r.Last)
	}
}

// TestRootBeganAt: a unit that failed before the guard noticed the new root still failed in the new root.
func TestRootBeganAt(t *testing.T) {
	gd := newGuard(t)
	g := &watch{Guard: gd, legSince: time.Hour}
	g.change.Target = "v2"
	if got := g.rootBeganAt(); got != time.Hour {
		t.Errorf("without a stamp: %v", got)
	}
	for target, want := range map[string]time.Duration{
		"v1": time.Hour, // a stamp of the switch before
		"v2": 50 * time.Minute,
	} {
		if err := gd.Transition.WriteStamp(level.Stamp{Target: target, At: 50 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		if got := g.rootBeganAt(); got != want {
			t.Errorf("with the stamp of %s: %v, want %v", target, got, want)
		}
	}
}

// TestGuardDecides takes a guard through what it may observe.
func TestGuardDecides(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	recorded := func(phase record.Phase, verb string, at time.Time) *record.Record {
		r := hosttest.OnTheWay(verb, "v1", "v2", "host", "v1")
		r.Phase, r.Switch.At = phase, at
		return r
	}
	armed := recorded(record.PhaseArmed, record.VerbApply, at)
	withdrawn := recorded(record.PhaseStaged, record.VerbApply, at)
	good := recorded(record.PhaseGood, record.VerbApply, at)
	good.Good = append(good.Good, "v2")
	back := recorded(record.PhaseArmed, record.VerbBack, at.Add(time.Minute))
	back.Switch.From, back.Switch.Target = "v2", "v1"
	into := recorded(record.PhaseArmed, record.VerbBack, at.Add(time.Minute))
	into.Switch.From = "v3"
	other := recorded(record.PhaseArmed, record.VerbRollback, at.Add(time.Minute))
	old, next := facts.Mounted{Root: "v1", Mount: 1}, facts.Mounted{Root: "v2", Mount: 2}
	oldAgain, nextAgain := facts.Mounted{Root: "v1", Mount: 3}, facts.Mounted{Root: "v2", Mount: 3}
	up, busy := &pid1.Manager{State: "running"}, &pid1.Manager{State: "starting", Starting: []string{"slow.service"}}
	down := &pid1.Manager{State: "stopping", SoftReboot: true, Stopping: []string{"stuck.service"}}
	arming := &pid1.Manager{State: "stopping", SoftReboot: true, Stopping: []string{pid1.ArmUnit}}
	const shutdown, health, dead = 2 * time.Minute, 5 * time.Minute, "ssh is dead"
	reasons := map[string]string{
		"hangs":                            "slow.service",
		"PID 1 is deaf":                    "systemd has not answered for",
		"PID 1 stops answering at the end": "and systemd does not answer",
		"confirm cannot roll back":         dead,
	}
	type look struct {
		after   time.Duration // since the one before
		mounted facts.Mounted
		record  *record.Record
		// noSwitch is whether the record can be read and names none.
		noSwitch bool
		manager  *pid1.Manager
		verdict  string
		// escalated is how many steps against a stuck shutdown the guard took before this look.
		escalated int
		want      act
	}
	for name, looks := range map[string][]look{
		"all is well": {
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: time.Second, mounted: next, record: armed, manager: busy, want: actWait},
			{after: time.Minute, mounted: next, record: good, manager: up, want: actEnd},
		},
		"withdrawn": {
			{after: time.Second, mounted: old, record: good, manager: up, want: actEnd},
		},
		"refused, on a host that had no record before": {
			{after: time.Second, mounted: old, noSwitch: true, manager: down, want: actWait},
			{after: time.Second, mounted: old, noSwitch: true, want: actWait},
			{after: time.Second, mounted: old, noSwitch: true, manager: up, want: actEnd},
		},
		"the next root has lost its state": {
			{after: time.Second, mounted: next, noSwitch: true, manager: up, want: actWait},
			{after: time.Second, mounted: next, noSwitch: true, manager: up, want: actWait},
			{after: health + Margin + time.Second, mounted: next, noSwitch: true, manager: up, want: actRollBack},
		},
		"never requested": {
			{after: shutdown + time.Second, mounted: old, record: armed, manager: up, want: actWait},
			{after: health + Margin, mounted: old, record: armed, manager: up, want: actWithdraw},
			{after: time.Second, mounted: old, record: withdrawn, manager: up, want: actEnd},
		},
		"never requested, no record": {
			{after: shutdown + health + Margin + time.Second, mounted: old, manager: up, want: actEnd},
		},
		"logind waits": {
			{after: shutdown + time.Minute, mounted: old, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: shutdown - time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: 2 * time.Second, mounted: old, record: armed, manager: down, want: actUnjam},
		},
		"cancelled by a person": {
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: old, record: armed, manager: up, want: actWait},
			{after: health + Margin, mounted: old, record: armed, manager: up, want: actWithdraw},
		},
		"cancelled too late": {
			{after: time.Second, mounted: old, record: withdrawn, manager: down, verdict: "cancelled", want: actUnjam},
			{after: time.Second, mounted: next, record: withdrawn, want: actWait},
			{after: time.Minute, mounted: next, record: withdrawn, manager: busy, want: actWait},
			{after: health, mounted: next, record: armed, manager: busy, want: actRollBack},
		},
		"withdrawn, and PID 1 goes on": {
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: time.Second, mounted: old, record: withdrawn, manager: down, want: actWait},
			{after: time.Second, mounted: old, record: withdrawn, want: actWait},
			{after: time.Second, mounted: next, record: withdrawn, manager: busy, want: actWait},
			{after: health, mounted: next, record: withdrawn, manager: busy, want: actWait},
			{after: Margin + time.Second, mounted: next, record: withdrawn, manager: busy, want: actRollBack},
		},
		"withdrawn, while PID 1 was busy": {
			{after: time.Second, mounted: old, record: withdrawn, want: actWait},
			{after: time.Second, mounted: old, record: withdrawn, manager: up, want: actEnd},
		},
		"never asked for, not yet": {
			{after: shutdown + health, mounted: old, record: armed, manager: up, want: actWait},
			{after: Margin - time.Second, mounted: old, record: armed, manager: up, want: actWait},
			{after: 2 * time.Second, mounted: old, record: armed, manager: up, want: actWithdraw},
		},
		"rolling back is stuck, in the end": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown, mounted: next, record: back, manager: down, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actUnjam},
		},
		"rolled back, still starting": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: busy, want: actWait},
			{after: health + Margin - time.Second, mounted: oldAgain, record: back, manager: busy, want: actWait},
			{after: 2 * time.Second, mounted: oldAgain, record: back, manager: busy, want: actFullReboot},
		},
		"stuck": {
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: shutdown - time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: 2 * time.Second, mounted: old, record: armed, manager: down, want: actUnjam},
		},
		"arming": {
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: old, record: armed, manager: arming, want: actWait},
			{after: armTime, mounted: old, record: armed, manager: arming, want: actUnjam},
		},
		"deaf before it left": {
			{after: time.Second, mounted: old, record: armed, want: actWait},
			{after: deafLimit + time.Second, mounted: old, record: armed, want: actFullReboot},
		},
		"another switch": {
			{after: time.Second, mounted: old, record: other, manager: down, want: actEnd},
		},
		"somewhere else": {
			{after: time.Second, mounted: oldAgain, record: armed, manager: up, want: actEnd},
		},
		"hangs": {
			{after: time.Second, mounted: next, record: armed, manager: busy, want: actWait},
			{after: health, mounted: next, record: armed, manager: busy, want: actWait},
			{after: Margin + time.Second, mounted: next, record: armed, manager: busy, want: actRollBack},
		},
		"hangs, no record": {
			{after: time.Second, mounted: next, manager: busy, want: actWait},
			{after: health + Margin + time.Second, mounted: next, manager: up, want: actRollBack},
		},
		"confirm cannot roll back": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: armed, manager: up, verdict: dead, want: actWait},
			{after: verdictGrace, mounted: next, record: armed, manager: up, verdict: dead, want: actWait},
			{after: time.Second, mounted: next, record: armed, manager: up, verdict: dead, want: actRollBack},
		},
		"confirm rolls back": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: busy, want: actWait},
			{after: time.Minute, mounted: oldAgain, record: good, manager: up, want: actEnd},
		},
		// The watched switch was refused. Another one leads to its target, by leaving a third root.
		"back into the target": {
			{after: time.Second, mounted: next, record: into, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: into, manager: up, want: actEnd},
		},
		"confirm was quick": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: busy, want: actWait},
			{after: health + Margin + time.Second, mounted: oldAgain, record: back, manager: busy, want: actFullReboot},
		},
		"the rollback hangs": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: next, record: back, manager: busy, want: actWait},
			{after: killGrace, mounted: next, record: back, manager: busy, want: actFullReboot},
		},
		"right before the switch back": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: next, record: back, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: up, want: actEnd},
		},
		"the way back is being armed": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: next, record: back, manager: arming, want: actWait},
			{after: armTime, mounted: next, record: back, manager: arming, want: actUnjam},
		},
		"the way back is being armed, after a service was killed": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: next, record: back, manager: arming, escalated: 1, want: actWait},
		},
		"the bad root comes back": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: time.Second, mounted: nextAgain, record: back, manager: up, want: actWait},
			{after: time.Second, mounted: nextAgain, record: back, manager: up, want: actWait},
			{after: health + Margin, mounted: nextAgain, record: back, manager: up, want: actFullReboot},
		},
		"the rollback is stuck": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: next, record: back, manager: down, want: actUnjam},
		},
		"the rollback is stuck, and unjamming did not help": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: shutdown + time.Second, mounted: next, record: back, manager: down, escalated: 1, want: actFullReboot},
		},
		"exactly at the limits": { // each is the last moment of waiting
			{after: shutdown + health + Margin, mounted: old, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: old, record: armed, manager: down, want: actWait},
			{after: shutdown, mounted: old, record: armed, manager: down, want: actWait},
			{after: armTime, mounted: old, record: armed, manager: arming, want: actWait},
			{after: time.Second, mounted: next, record: armed, manager: busy, want: actWait},
			{after: health + Margin - deafLimit, mounted: next, record: armed, want: actWait},
			{after: deafLimit, mounted: next, record: armed, want: actWait},
		},
		"PID 1 stops answering at the end": {
			{after: time.Second, mounted: next, record: armed, manager: busy, want: actWait},
			{after: health + Margin + time.Second, mounted: next, record: armed, want: actRollBack},
		},
		"confirm was quick, and the old root stands": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: busy, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: up, want: actEnd},
		},
		"the old root hangs, too": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: back, manager: down, want: actWait},
			{after: time.Second, mounted: oldAgain, record: back, manager: busy, want: actWait},
			{after: health + Margin + time.Second, mounted: oldAgain, record: back, manager: busy, want: actFullReboot},
		},
		"PID 1 is deaf": {
			{after: time.Second, mounted: next, record: armed, want: actWait},
			{after: deafLimit - time.Second, mounted: next, record: armed, want: actWait},
			{after: 2 * time.Second, mounted: next, record: armed, want: actFullReboot},
		},
		"PID 1 was busy": {
			{after: time.Second, mounted: next, record: armed, want: actWait},
			{after: deafLimit - time.Second, mounted: next, record: armed, manager: busy, want: actWait},
			{after: 2 * time.Second, mounted: next, record: armed, want: actWait},
		},
		"an operator rolls back": {
			{after: time.Second, mounted: next, record: armed, manager: up, want: actWait},
			{after: time.Second, mounted: next, record: other, manager: up, want: actEnd},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := &watch{
				change: *armed.Switch, leg: legLeaving, mount: old.Mount, legSince: time.Hour,
				shutdown: shutdown, health: health, back: &assembly.Next{ID: "v1"},
			}
			now := time.Hour
			for i, l := range looks {
				now += l.after
				if l.verdict == "cancelled" {
					g.cancellingSince = now
				}
				if l.escalated > 0 {
					g.escalated = l.escalated
				}
				s := observation{
					Mounted: l.mounted, now: now, record: l.record, noSwitch: l.noSwitch, manager: l.manager,
					verdict: record.Departure{Reason: l.verdict},
				}
				if got := g.nextAct(s); got != l.want {
					t.Fatalf("look %d: %q on leg %q, want %q", i+1, got, g.leg, l.want)
				}
			}
			if want := reasons[name]; !strings.Contains(g.reason, want) || strings.HasSuffix(g.reason, ": ") {
				t.Errorf("the reason is %q, want %q in it", g.reason, want)
			}
		})
	}
}
