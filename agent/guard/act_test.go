package guard

import (
	"errors"
	"io/fs"
	"os"
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

// TestRecordIsLost: the new root may come up without the state, and so without a record. The guard still watches, and
// its rollback records what it knew.
func TestRecordIsLost(t *testing.T) {
	gd := newGuard(t)
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Switch.At = time.Unix(1, 0).UTC()
	if err := gd.Records.Write(r); err != nil {
		t.Fatal(err)
	}
	w := &watch{Guard: gd, change: *r.Switch, leg: legTrying, mount: 7, health: time.Minute}
	if rec, err := w.readRecord(); err != nil || rec.Phase != record.PhaseTrying {
		t.Fatalf("%+v, %v", rec, err)
	}
	if err := os.Remove(gd.Path(record.RecordFile)); err != nil {
		t.Fatal(err)
	}
	rec, err := w.readRecord()
	if rec != nil || !errors.Is(err, errNoSwitch) {
		t.Errorf("got %+v, %v", rec, err)
	}
	left := facts.Mounted{Root: "v2", Mount: 7}
	if next := w.nextAct(observation{Mounted: left, now: time.Second}); next != actWait {
		t.Errorf("without a record, the guard does %q", next)
	}
	if next := w.nextAct(observation{Mounted: left, now: 2 * time.Minute}); next != actRollBack {
		t.Errorf("without a record and after the deadline, the guard does %q", next)
	}
	back := record.Switch{Verb: record.VerbBack, At: time.Unix(2, 0).UTC()}
	back.From, back.Target, back.BootID = "v2", "v1", "b"
	if err := w.leaveNote(left, r, back, record.Departure{Reason: "it hangs"}); err != nil {
		t.Fatal(err)
	}
	if rec, err := gd.Records.Read(); err != nil || rec.Bad["v2"].Reason != "it hangs" || rec.Switch.Target != "v1" {
		t.Errorf("got %+v, %v", rec, err)
	}
}

// TestOvertaken: the guard does not roll back when the root was judged while it waited, and leaves no note that would
// keep the root from running on.
func TestOvertaken(t *testing.T) {
	for name, judge := range map[string]func(*record.Record) error{
		"good": func(r *record.Record) error { return r.Proved("v2") },
		"rolled back by confirm": func(r *record.Record) error {
			back := record.Switch{Verb: record.VerbBack, At: time.Unix(3, 0).UTC()}
			back.From, back.Target = "v2", "v1"
			return r.Retreat(record.CauseUnhealthy, back, record.Departure{Reason: "a unit failed"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			gd := newGuard(t)
			r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
			r.Switch.At = time.Unix(1, 0).UTC()
			w := &watch{Guard: gd, change: *r.Switch, leg: legTrying}
			old, err := r.Clone()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(judge(r), gd.Records.Write(r)); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(gd.Path(record.RecordFile))
			if err != nil {
				t.Fatal(err)
			}
			back := record.Switch{Verb: record.VerbBack, At: time.Unix(2, 0).UTC()}
			back.From, back.Target = "v2", "v1"
			err = w.leaveNote(facts.Mounted{Root: "v2"}, old, back, record.Departure{Reason: "it hangs"})
			if !errors.Is(err, errOvertaken) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(gd.Path(transition.GuardNoteFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the note: %v", err)
			}
			if after, err := os.ReadFile(gd.Path(record.RecordFile)); err != nil || string(after) != string(before) {
				t.Errorf("the record is now %s, %v", after, err)
			}
		})
	}
}
