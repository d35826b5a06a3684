package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
)

// TestGuardDecides follows a guard through what it may see.
func TestGuardDecides(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	record := func(phase Phase, verb string, at time.Time) *Record {
		r := onTheWay(verb, "v1", "v2", "host", "v1")
		r.Phase, r.Switch.At = phase, at
		return r
	}
	armed, good := record(PhaseArmed, verbApply, at), record(PhaseGood, verbApply, at)
	back := record(PhaseArmed, verbBack, at.Add(time.Minute))
	other := record(PhaseArmed, verbRollback, at.Add(time.Minute))
	old, next := switcher.Mounted{Root: "v1", Mount: 1}, switcher.Mounted{Root: "v2", Mount: 2}
	again := switcher.Mounted{Root: "v1", Mount: 3}
	up, busy := &switcher.Manager{State: "running"}, &switcher.Manager{State: "starting", Starting: []string{"slow.service"}}
	down := &switcher.Manager{State: "stopping", SoftReboot: true, Stopping: []string{"stuck.service"}}
	const shutdown, health = 2 * time.Minute, 5 * time.Minute
	type look struct {
		after   time.Duration // since the one before
		mounted switcher.Mounted
		record  *Record
		manager *switcher.Manager
		verdict string
		want    act
	}
	for name, looks := range map[string][]look{
		"all is well":             {{time.Second, old, armed, down, "", actWait}, {time.Second, next, armed, busy, "", actWait}, {time.Minute, next, good, up, "", actEnd}},
		"taken back":              {{time.Second, old, good, up, "", actEnd}},
		"never asked for":         {{shutdown + time.Second, old, armed, up, "", actWait}, {health + guardMargin, old, armed, up, "", actEnd}},
		"stuck":                   {{shutdown - time.Second, old, armed, down, "", actWait}, {2 * time.Second, old, armed, down, "", actUnjam}},
		"another switch":          {{time.Second, old, other, down, "", actEnd}},
		"somewhere else":          {{time.Second, again, armed, up, "", actEnd}},
		"hangs":                   {{time.Second, next, armed, busy, "", actWait}, {health, next, armed, busy, "", actWait}, {guardMargin + time.Second, next, armed, busy, "", actBack}},
		"hangs, no record":        {{time.Second, next, nil, busy, "", actWait}, {health + guardMargin + time.Second, next, nil, busy, "", actBack}},
		"confirm cannot go back":  {{time.Second, next, armed, up, "", actWait}, {time.Second, next, armed, up, "ssh is dead", actWait}, {verdictGrace + time.Second, next, armed, up, "ssh is dead", actBack}},
		"confirm goes back":       {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {time.Second, again, back, busy, "", actWait}, {time.Minute, again, good, up, "", actEnd}},
		"confirm was quick":       {{time.Second, next, armed, up, "", actWait}, {time.Second, again, back, busy, "", actWait}, {health + guardMargin + time.Second, again, back, busy, "", actReboot}},
		"going back hangs":        {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {shutdown + time.Second, next, back, busy, "", actReboot}},
		"going back is stuck":     {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {shutdown + time.Second, next, back, down, "", actUnjam}},
		"the old root hangs, too": {{time.Second, next, armed, up, "", actWait}, {time.Second, next, back, down, "", actWait}, {time.Second, again, back, busy, "", actWait}, {health + guardMargin + time.Second, again, back, busy, "", actReboot}},
		"PID 1 is deaf":           {{time.Second, next, armed, nil, "", actWait}, {deafLimit - time.Second, next, armed, nil, "", actWait}, {2 * time.Second, next, armed, nil, "", actReboot}},
		"PID 1 was busy":          {{time.Second, next, armed, nil, "", actWait}, {deafLimit - time.Second, next, armed, busy, "", actWait}, {2 * time.Second, next, armed, nil, "", actWait}},
		"an operator rolls back":  {{time.Second, next, armed, up, "", actWait}, {time.Second, next, other, up, "", actEnd}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guard{change: *armed.Switch, stage: leaving, mount: old.Mount, since: time.Hour, shutdown: shutdown, health: health}
			now := time.Hour
			for i, l := range looks {
				now += l.after
				s := sight{Mounted: l.mounted, now: now, record: l.record, manager: l.manager, verdict: l.verdict}
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
