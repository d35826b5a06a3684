package guard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// TestGuardGoesOnCancelling: the record says that the host stays, and that is seen to until it does.
func TestGuardGoesOnCancelling(t *testing.T) {
	r := record.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseStaged
	g := &watch{change: *r.Switch, stage: leaving, mount: 1, cancelling: true, shutdown: time.Minute, health: time.Minute}
	down := &pid1.Manager{State: "stopping", SoftReboot: true}
	at := func(mount int, m *pid1.Manager) observation {
		return observation{Mounted: facts.Mounted{Root: "v1", Mount: mount}, now: time.Hour, record: r, manager: m}
	}
	for _, want := range []struct {
		observation
		act
	}{{at(1, down), actUnjam}, {at(1, nil), actWait}, {at(1, down), actUnjam}, {at(2, down), actEnd}} {
		if got := g.next(want.sight); got != want.act {
			t.Fatalf("%q, want %q", got, want.act)
		}
	}
}

// TestGuardBootsBeforeItLeft: a root that never ran is not condemned because the one before it hangs, and nobody went back
// to a root that is being resumed.
func TestGuardBootsBeforeItLeft(t *testing.T) {
	a := agent.TestAgent(t)
	r := record.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseArmed
	if err := a.recordBoot(r, leaving, "systemd has not answered"); err != nil {
		t.Fatal(err)
	}
	if len(r.Bad) != 0 || r.Failed["v2"].Times != 1 || r.Last.Outcome != level.Stuck || r.Last.Back != "" {
		t.Errorf("%+v, %+v", r, r.Last)
	}
	r.Phase = record.PhaseStaged // it was cancelled, and PID 1 did not hear of it
	if err := a.recordBoot(r, leaving, "systemd has not answered"); err != nil || r.Failed["v2"].Times != 1 || r.Phase != record.PhaseStaged || !strings.Contains(r.Last.Reason, "; systemd has not answered; the kernel was booted") {
		t.Errorf("%+v, %+v (%v)", r, r.Last, err)
	}
	events, err := a.Records.History()
	if err != nil || len(events) != 2 || events[0].Event != "failed" || events[1].Event != "failed" {
		t.Errorf("the history is %+v (%v)", events, err)
	}
	r = record.OnTheWay(record.VerbResume, "host", "v2", "host", "v2")
	r.Phase = record.PhaseTrying
	if err := a.recordBoot(r, trying, "systemd has not answered"); err != nil {
		t.Fatal(err)
	}
	if r.Last.Back != switcher.HostRoot || !slices.Contains(r.Good, "v2") {
		t.Errorf("%+v, %+v", r, r.Last)
	}
}

// TestGuardSeesLate: what failed before the guard looked failed in the new root all the same.
func TestGuardSeesLate(t *testing.T) {
	a := agent.TestAgent(t)
	agent.WriteFile(t, a.Machine.Root, switcher.RunDir+"/.keep", "")
	g := &watch{agent: a, since: time.Hour}
	g.change.Target = "v2"
	if got := g.began(); got != time.Hour {
		t.Errorf("without a stamp: %v", got)
	}
	for target, want := range map[string]time.Duration{"v1": time.Hour, "v2": 50 * time.Minute} { // v1's is of the switch before
		if err := a.Transition.WriteStamp(level.Stamp{Target: target, At: 50 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		if got := g.began(); got != want {
			t.Errorf("with the stamp of %s: %v, want %v", target, got, want)
		}
	}
}

// TestGuardDecides follows a guard through what it may see.
func TestGuardDecides(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	record := func(phase record.Phase, verb string, at time.Time) *record.Record {
		r := record.OnTheWay(verb, "v1", "v2", "host", "v1")
		r.Phase, r.Switch.At = phase, at
		return r
	}
	armed, good, taken := record(record.PhaseArmed, record.VerbApply, at), record(record.PhaseGood, record.VerbApply, at), record(record.PhaseStaged, record.VerbApply, at)
	good.Good = append(good.Good, "v2")
	back := record(record.PhaseArmed, record.VerbBack, at.Add(time.Minute))
	other := record(record.PhaseArmed, record.VerbRollback, at.Add(time.Minute))
	old, next := facts.Mounted{Root: "v1", Mount: 1}, facts.Mounted{Root: "v2", Mount: 2}
	again := facts.Mounted{Root: "v1", Mount: 3}
	up, busy := &pid1.Manager{State: "running"}, &pid1.Manager{State: "starting", Starting: []string{"slow.service"}}
	down := &pid1.Manager{State: "stopping", SoftReboot: true, Stopping: []string{"stuck.service"}}
	arming := &pid1.Manager{State: "stopping", SoftReboot: true, Stopping: []string{pid1.ArmUnit}}
	const shutdown, health = 2 * time.Minute, 5 * time.Minute
	type look struct {
		after   time.Duration // since the one before
		mounted facts.Mounted
		record  *record.Record
		manager *pid1.Manager
		verdict string
		want    act
	}
	for name, looks := range map[string][]look{
		"all is well":                {{time.Second, old, armed, down, "", actWait}, {time.Second, next, armed, busy, "", actWait}, {time.Minute, next, good, up, "", actEnd}},
		"taken back":                 {{time.Second, old, good, up, "", actEnd}},
		"never asked for":            {{shutdown + time.Second, old, armed, up, "", actWait}, {health + Margin, old, armed, up, "", actRecall}, {time.Second, old, taken, up, "", actEnd}},
		"never asked for, no record": {{shutdown + health + Margin + time.Second, old, nil, up, "", actEnd}},
		"logind waits":               {{shutdown + time.Minute, old, armed, up, "", actWait}, {time.Second, old, armed, down, "", actWait}, {shutdown - time.Second, old, armed, down, "", actWait}, {2 * time.Second, old, armed, down, "", actUnjam}},
		"cancelled by a person":      {{time.Second, old, armed, down, "", actWait}, {shutdown + time.Second, old, armed, up, "", actWait}, {health + Margin, old, armed, up, "", actRecall}},
		"cancelled too late":         {{time.Second, old, taken, down, "cancelled", actUnjam}, {time.Second, next, taken, nil, "", actWait}, {time.Minute, next, taken, busy, "", actWait}, {health, next, armed, busy, "", actBack}},
		"stuck":                      {{time.Second, old, armed, down, "", actWait}, {shutdown - time.Second, old, armed, down, "", actWait}, {2 * time.Second, old, armed, down, "", actUnjam}},
		"arming":                     {{time.Second, old, armed, down, "", actWait}, {shutdown + time.Second, old, armed, arming, "", actWait}, {armTime, old, armed, arming, "", actUnjam}},
		"deaf before it left":        {{time.Second, old, armed, nil, "", actWait}, {deafLimit + time.Second, old, armed, nil, "", actReboot}},
		"another switch":             {{time.Second, old, other, down, "", actEnd}},
		"somewhere else":             {{time.Second, again, armed, up, "", actEnd}},
		"hangs":                      {{time.Second, next, armed, busy, "", actWait}, {health, next, armed, busy, "", actWait}, {Margin + time.Second, next, armed, busy, "", actBack}},
		"hangs, no record":           {{time.Second, next, nil, busy, "", actWait}, {health + Margin + time.Second, next, nil, busy, "", actBack}},
		"confirm cannot go back":     {{time.Second, next, armed, up, "", actWait}, {time.Second, next, armed, up, "ssh is dead", actWait}, {verdictGrace + time.Second, next, armed, up, "ssh is dead", actBack}},
		"confirm goes back":          {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {time.Second, again, back, busy, "", actWait}, {time.Minute, again, good, up, "", actEnd}},
		"confirm was quick":          {{time.Second, next, armed, up, "", actWait}, {time.Second, again, back, busy, "", actWait}, {health + Margin + time.Second, again, back, busy, "", actReboot}},
		"going back hangs":           {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {shutdown + time.Second, next, back, busy, "", actReboot}},
		"going back is stuck":        {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {shutdown + time.Second, next, back, down, "", actUnjam}},
		"the old root hangs, too":    {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {time.Second, again, back, busy, "", actWait}, {health + Margin + time.Second, again, back, busy, "", actReboot}},
		"PID 1 is deaf":              {{time.Second, next, armed, nil, "", actWait}, {deafLimit - time.Second, next, armed, nil, "", actWait}, {2 * time.Second, next, armed, nil, "", actReboot}},
		"PID 1 was busy":             {{time.Second, next, armed, nil, "", actWait}, {deafLimit - time.Second, next, armed, busy, "", actWait}, {2 * time.Second, next, armed, nil, "", actWait}},
		"an operator rolls back":     {{time.Second, next, armed, up, "", actWait}, {time.Second, next, other, up, "", actEnd}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &watch{change: *armed.Switch, stage: leaving, mount: old.Mount, since: time.Hour, shutdown: shutdown, health: health}
			now := time.Hour
			for i, l := range looks {
				now += l.after
				g.cancelling = g.cancelling || l.verdict == "cancelled"
				s := observation{Mounted: l.mounted, now: now, record: l.record, manager: l.manager, verdict: l.verdict}
				if got := g.next(s); got != l.want {
					t.Fatalf("look %d: %q in stage %q, want %q", i+1, got, g.stage, l.want)
				}
			}
			if name == "hangs" && !strings.Contains(g.why, "slow.service") {
				t.Errorf("the reason is %q, and does not name what hangs", g.why)
			}
		})
	}
}
