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

// TestArrivedLate: a switch that systemd makes although it was withdrawn must be judged, even when only the guard can.
func TestArrivedLate(t *testing.T) {
	withdrawn := func() *record.Record {
		r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
		r.Phase = record.PhaseArmed
		if err := r.Advance(record.CauseWithdrawn); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := withdrawn()
	if r.ArrivedLate("v1") || !r.ArrivedLate("v2") {
		t.Errorf("late: v1 %v, v2 %v", r.ArrivedLate("v1"), r.ArrivedLate("v2"))
	}
	gd := newGuard(t)
	f := facts.Facts{Root: "v2", BootID: "b", SoftReboots: 1}
	if err := r.Advance(record.CauseLate); err != nil || r.Phase != record.PhaseArmed {
		t.Errorf("%s, %v", r.Phase, err)
	}
	r = withdrawn()
	back := record.Switch{Verb: record.VerbBack, At: time.Unix(2, 0)}
	back.From, back.Target, back.BootID = "v2", "v1", "b"
	if !(&transition.GuardNote{Left: "v2", Switch: back}).Concerns(r, f) {
		t.Error("what the guard did is not taken over")
	}
	if err := r.Retreat(record.CauseTakenOver, back, record.Departure{Reason: "it hangs"}); err != nil ||
		r.Bad["v2"].Reason != "it hangs" || r.Switch.Target != "v1" {
		t.Errorf("%+v, %v", r, err)
	}
	r = withdrawn()
	if err := gd.recordFullReboot(r, legTrying, "systemd has not answered"); err != nil ||
		!strings.Contains(r.Bad["v2"].Reason, "systemd has not answered") {
		t.Errorf("%+v, %v", r, err)
	}
	r.MarkGood("v2")
	if r.ArrivedLate("v2") {
		t.Error("a good root counts as arrived late")
	}
}
