package record

import (
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/health"
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

// TestVolatile: a volatile root that proves healthy changes nothing of what the host knows about good and bad roots,
// and is the way to the last good one. A later switch to it begins anew.
func TestVolatile(t *testing.T) {
	r := &Record{
		Phase: PhaseTrying, Staged: "v3", Good: []string{switcher.HostRoot, "v1", "v2"}, Failed: map[string]Failed{},
		Bad: map[string]Bad{"v3": {Reason: "it was slow"}}, Attempts: map[string]int{"v3": 1},
		Switch: &Switch{Expectation: level.Expectation{From: "v2", Target: "v3"}, Verb: VerbApply, Volatile: true},
	}
	if back := r.RollbackTarget(); back != "v2" {
		t.Errorf("it rolls back to %s", back)
	}
	if err := r.Proved("v3"); err != nil {
		t.Fatal(err)
	}
	if r.LastGood() != "v2" || len(r.Good) != 3 || r.Staged != "v3" || len(r.Bad) != 1 || r.Attempts["v3"] != 0 ||
		r.Moving() || r.Healthy != "v3" {
		t.Errorf("the record is %+v", r)
	}
	if r.ArrivedLate("v3") {
		t.Error("the healthy root passes for one that nobody has judged")
	}
	if !slices.Contains(r.Needed("v3"), "v3") {
		t.Errorf("gc needs %v only", r.Needed("v3"))
	}
	r.Healthy, r.Switch.Target = "", "v1" // a root that was good before is tried, and not judged yet
	if back := r.PreviousGood("v1"); back != "v2" {
		t.Errorf("rollback from a root that was good before leads to %s", back)
	}
	leaves := Switch{Expectation: level.Expectation{From: "v1", Target: "v2"}, Verb: VerbRollback,
		Before: health.Before{Failed: []string{"swap.service"}}}
	r.Phase, r.WhenGood = PhaseGood, nil
	if err := r.BeginSwitch(leaves); err != nil || len(r.WhenGood["v1"].Failed) > 0 {
		t.Errorf("what failed in a trial is known of the good root: %+v, %v", r.WhenGood, err)
	}
	r.Phase, r.Healthy = PhaseGood, "v1" // the mark of a trial, and the root runs for good by now
	if back := r.PreviousGood("v1"); back != switcher.HostRoot {
		t.Errorf("rollback from a root that was tried once leads to %s", back)
	}
	next := Switch{Expectation: level.Expectation{From: "v2", Target: "v1"}, Verb: VerbApply}
	if err := r.BeginSwitch(next); err != nil || r.Healthy != "" {
		t.Errorf("a switch to it, for good, counts as judged: %q, %v", r.Healthy, err)
	}
	r.Switch = &Switch{Expectation: level.Expectation{Target: "v4"}, Verb: VerbApply, Volatile: true}
	r.MarkBad("v4", Bad{Reason: RolledBack, RolledBack: true})
	if _, bad := r.Bad["v4"]; bad {
		t.Error("whoever ends a trial refuses the root")
	}
	if r.MarkBad("v4", Bad{Reason: "it hangs"}); r.Bad["v4"].Reason != "it hangs" {
		t.Error("an unhealthy volatile root is not bad")
	}
}
