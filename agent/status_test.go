package agent

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestUnderWayNow: what people are told of a switch goes by what is mounted at /.
func TestUnderWayNow(t *testing.T) {
	const root = "sha256-2"
	for name, c := range map[string]struct {
		phase, want Phase
		at          string
		soft        int
		boot        string
		stamp       *level.Stamp
		told        bool
		deadline    bool
	}{
		"asked for":                    {phase: PhaseArmed, at: "host", boot: "a", want: PhaseArmed, told: true},
		"arrived, not confirmed":       {phase: PhaseArmed, at: root, boot: "a", soft: 1, stamp: &level.Stamp{Target: root, At: 1}, want: PhaseTrying, told: true, deadline: true},
		"confirm is at work":           {phase: PhaseTrying, at: root, boot: "a", soft: 1, stamp: &level.Stamp{Target: root, At: 1}, want: PhaseTrying, told: true, deadline: true},
		"since when is not known":      {phase: PhaseTrying, at: root, boot: "a", soft: 1, want: PhaseTrying, told: true},
		"the power was cut on trial":   {phase: PhaseTrying, at: "host", boot: "b", want: PhaseTrying},
		"the power was cut on its way": {phase: PhaseArmed, at: "host", boot: "b", want: PhaseArmed},
		"it fell back":                 {phase: PhaseArmed, at: "host", boot: "a", soft: 1, stamp: &level.Stamp{Target: root, At: 1}, want: PhaseArmed},
		"at rest":                      {phase: PhaseGood, at: root, boot: "a", soft: 1, want: PhaseGood},
	} {
		t.Run(name, func(t *testing.T) {
			a := testAgent(t)
			writeFile(t, a.Machine.Root, switcher.RunDir+"/.keep", "")
			if c.stamp != nil {
				if err := a.writeStamp(*c.stamp); err != nil {
					t.Fatal(err)
				}
			}
			rec, err := a.readRecord()
			if err != nil {
				t.Fatal(err)
			}
			rec.Phase = c.phase
			rec.Switch = &Switch{Verb: verbApply, Version: "2", Expectation: level.Expectation{From: "host", Target: root, BootID: "a"}}
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
			began := a.Now().Add(-sinceBoot())
			if want := began.Add(time.Duration(a.Config.Health.Deadline)); c.deadline && s.Deadline.Sub(want).Abs() > 2*time.Second {
				t.Errorf("the deadline is %v, want %v", s.Deadline, want)
			}
		})
	}
}
