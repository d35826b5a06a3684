package guard

import (
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher/facts"
)

// TestLate: a switch that was taken back and came all the same is one that somebody has to judge, also where only the
// guard can.
func TestLate(t *testing.T) {
	taken := func() *record.Record {
		r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
		r.Phase = record.PhaseArmed
		if err := r.Advance(record.CauseWithdrawn); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := taken()
	if r.ArrivedLate("v1") || !r.ArrivedLate("v2") {
		t.Errorf("late: v1 %v, v2 %v", r.ArrivedLate("v1"), r.ArrivedLate("v2"))
	}
	gd := newGuard(t)
	f := facts.Facts{Root: "v2", BootID: "b", SoftReboots: 1}
	if err := r.Advance(record.CauseLate); err != nil || r.Phase != record.PhaseArmed {
		t.Errorf("%s, %v", r.Phase, err)
	}
	r = taken()
	back := record.Switch{Verb: record.VerbBack, At: time.Unix(2, 0)}
	back.From, back.Target, back.BootID = "v2", "v1", "b"
	if !(&transition.GuardNote{Left: "v2", Switch: back}).Concerns(r, f) {
		t.Error("what the guard did is not taken over")
	}
	if err := r.Retreat(record.CauseTakenOver, back, record.Departure{Reason: "it hangs"}); err != nil ||
		r.Bad["v2"].Reason != "it hangs" || r.Switch.Target != "v1" {
		t.Errorf("%+v, %v", r, err)
	}
	r = taken()
	if err := gd.recordBoot(r, trying, "systemd has not answered"); err != nil ||
		!strings.Contains(r.Bad["v2"].Reason, "systemd has not answered") {
		t.Errorf("%+v, %v", r, err)
	}
	r.MarkGood("v2")
	if r.ArrivedLate("v2") {
		t.Error("a good root is taken for a late one")
	}
}
