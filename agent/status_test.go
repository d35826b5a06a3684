package agent

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestUnderWayNow: the switch that status shows is decided by what is mounted at /.
func TestUnderWayNow(t *testing.T) {
	const root, armed, trying, good = "sha256-2", record.PhaseArmed, record.PhaseTrying, record.PhaseGood
	stamp := &level.Stamp{Target: root, At: 1}
	for name, c := range map[string]struct {
		phase, want record.Phase
		at          string
		soft        int
		boot        string
		stamp       *level.Stamp
		shown       bool
		deadline    bool
	}{
		"requested": {phase: armed, at: "host", boot: "a", want: armed, shown: true},
		"arrived, not confirmed": {
			phase: armed, at: root, boot: "a", soft: 1, stamp: stamp, want: trying, shown: true, deadline: true,
		},
		"confirm is at work": {
			phase: trying, at: root, boot: "a", soft: 1, stamp: stamp, want: trying, shown: true, deadline: true,
		},
		"its start is unknown":     {phase: trying, at: root, boot: "a", soft: 1, want: trying, shown: true},
		"a power cut in the trial": {phase: trying, at: "host", boot: "b", want: trying},
		"a power cut on the way":   {phase: armed, at: "host", boot: "b", want: armed},
		"it fell back":             {phase: armed, at: "host", boot: "a", soft: 1, stamp: stamp, want: armed},
		"at rest":                  {phase: good, at: root, boot: "a", soft: 1, want: good},
	} {
		t.Run(name, func(t *testing.T) {
			a := testAgent(t)
			if c.stamp != nil {
				if err := a.Transition.WriteStamp(*c.stamp); err != nil {
					t.Fatal(err)
				}
			}
			rec, err := a.Records.Read()
			if err != nil {
				t.Fatal(err)
			}
			rec.Phase = c.phase
			rec.Switch = &record.Switch{
				Verb: record.VerbApply, Version: "2",
				Expectation: level.Expectation{From: "host", Target: root, BootID: "a"},
			}
			phase, s := a.underWayNow(facts.Facts{Root: c.at, BootID: c.boot, SoftReboots: c.soft}, rec)
			if phase != c.want || (s != nil) != c.shown {
				t.Fatalf("phase %s, switch %+v", phase, s)
			}
			if s == nil {
				return
			}
			if s.Target != root || s.Back != "host" || s.Version != "2" || s.Deadline.IsZero() == c.deadline {
				t.Errorf("switch %+v", s)
			}
			began := a.Now().Add(-a.Machine.Kernel.SinceBoot())
			want := began.Add(time.Duration(a.Config.Health.Deadline))
			if c.deadline && s.Deadline.Sub(want).Abs() > 2*time.Second {
				t.Errorf("the deadline is %v, want %v", s.Deadline, want)
			}
		})
	}
}
