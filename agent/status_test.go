package agent

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestUnderWayNow: what people are told of a switch goes by what is mounted at /.
func TestUnderWayNow(t *testing.T) {
	const root = "sha256-2"
	for name, c := range map[string]struct {
		phase, want record.Phase
		at          string
		soft        int
		boot        string
		stamp       *level.Stamp
		told        bool
		deadline    bool
	}{
		"asked for":                    {phase: record.PhaseArmed, at: "host", boot: "a", want: record.PhaseArmed, told: true},
		"arrived, not confirmed":       {phase: record.PhaseArmed, at: root, boot: "a", soft: 1, stamp: &level.Stamp{Target: root, At: 1}, want: record.PhaseTrying, told: true, deadline: true},
		"confirm is at work":           {phase: record.PhaseTrying, at: root, boot: "a", soft: 1, stamp: &level.Stamp{Target: root, At: 1}, want: record.PhaseTrying, told: true, deadline: true},
		"since when is not known":      {phase: record.PhaseTrying, at: root, boot: "a", soft: 1, want: record.PhaseTrying, told: true},
		"the power was cut on trial":   {phase: record.PhaseTrying, at: "host", boot: "b", want: record.PhaseTrying},
		"the power was cut on its way": {phase: record.PhaseArmed, at: "host", boot: "b", want: record.PhaseArmed},
		"it fell back":                 {phase: record.PhaseArmed, at: "host", boot: "a", soft: 1, stamp: &level.Stamp{Target: root, At: 1}, want: record.PhaseArmed},
		"at rest":                      {phase: record.PhaseGood, at: root, boot: "a", soft: 1, want: record.PhaseGood},
	} {
		t.Run(name, func(t *testing.T) {
			a := testAgent(t)
			testtree.File(t, a.Machine.Root, switcher.RunDir+"/.keep", "")
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
			rec.Switch = &record.Switch{Verb: record.VerbApply, Version: "2", Expectation: level.Expectation{From: "host", Target: root, BootID: "a"}}
			phase, s := a.underWayNow(facts.Facts{Root: c.at, BootID: c.boot, SoftReboots: c.soft}, rec)
			if phase != c.want || (s != nil) != c.told {
				t.Fatalf("told are %s and %+v", phase, s)
			}
			if s == nil {
				return
			}
			if s.Target != root || s.Back != "host" || s.Version != "2" || s.Deadline.IsZero() == c.deadline {
				t.Errorf("told is %+v", s)
			}
			began := a.Now().Add(-host.SinceBoot())
			if want := began.Add(time.Duration(a.Config.Health.Deadline)); c.deadline && s.Deadline.Sub(want).Abs() > 2*time.Second {
				t.Errorf("the deadline is %v, want %v", s.Deadline, want)
			}
		})
	}
}
