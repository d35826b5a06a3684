package record

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestNeverRan: a switch that fails before the new root runs is not that root's fault, but it is counted.
func TestNeverRan(t *testing.T) {
	for name, outcome := range map[string]level.Outcome{
		"not armed":                       level.NotArmed,
		"full reboot before it was armed": level.Rebooted,
	} {
		t.Run(name, func(t *testing.T) {
			r := onTheWay(VerbApply, "v1", "v2", "host", "v1")
			for times := 1; times <= MaxAttempts+1; times++ {
				r.Phase, r.Attempts["v2"] = PhaseArmed, MaxAttempts
				if err := r.GiveUp(CauseMissed, outcome, "no space", time.Now()); err != nil {
					t.Fatal(err)
				}
				if want := (Failed{times, "no space"}); r.Failed["v2"] != want || len(r.Bad) != 0 {
					t.Errorf("failed %+v, bad %+v; want %+v", r.Failed, r.Bad, want)
				}
			}
		})
	}
}

func TestLanded(t *testing.T) {
	rec := &Record{Last: &Result{Outcome: level.Landed, Target: "v2"}}
	for _, c := range []struct {
		id, running string
		last        level.Outcome
		want        bool
	}{
		{"v2", switcher.HostRoot, level.Landed, true},
		{"v3", switcher.HostRoot, level.Landed, false},
		{"v2", "v1", level.Landed, false},
		{"v2", switcher.HostRoot, level.Rebooted, false},
	} {
		rec.Last.Outcome = c.last
		if got := rec.Landed(c.id, facts.Facts{Root: c.running}); got != c.want {
			t.Errorf("landed for %s on %s after %s is %v, want %v", c.id, c.running, c.last, got, c.want)
		}
	}
	if (&Record{}).Landed("v2", facts.Facts{Root: switcher.HostRoot}) {
		t.Error("landed without a switch")
	}
}

// TestStaysAfterARollbackThatFailed: the root that the operator could not leave is not bad for that.
func TestStaysAfterARollbackThatFailed(t *testing.T) {
	at := time.Now().UTC()
	for name, c := range map[string]struct {
		outcome level.Outcome
		bad     Bad
		stays   bool // whether the mark stays
	}{
		"not armed":       {level.NotArmed, Bad{RolledBack: true, At: at}, false},
		"fell back":       {level.FellBack, Bad{RolledBack: true, At: at}, false},
		"left before":     {level.NotArmed, Bad{RolledBack: true, At: at.Add(-time.Hour)}, true},
		"it is unhealthy": {level.NotArmed, Bad{Reason: "a unit failed", At: at}, true},
		"a full reboot":   {level.Rebooted, Bad{RolledBack: true, At: at}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := onTheWay(VerbRollback, "v2", "host", "host", "v2")
			r.Phase, r.Switch.At, r.Bad["v2"] = PhaseArmed, at, c.bad
			if err := r.GiveUp(CauseMissed, c.outcome, "no os-release", at); err != nil {
				t.Fatal(err)
			}
			if _, bad := r.Bad["v2"]; bad != c.stays {
				t.Errorf("bad are %+v, want the mark: %v", r.Bad, c.stays)
			}
		})
	}
}
