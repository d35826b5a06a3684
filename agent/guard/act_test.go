package guard

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
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
	if err := r.BeginRollback(record.CauseTakenOver, back, record.Departure{Reason: "it hangs"}); err != nil ||
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

// TestEndByFullReboot has every case of endByFullReboot.
func TestEndByFullReboot(t *testing.T) {
	const (
		host  = switcher.HostRoot
		why   = "systemd has not answered"
		stuck = "the shutdown was stuck; it was cancelled"
	)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	with := func(r *record.Record, phase record.Phase, last *record.Result) *record.Record {
		r.Phase, r.Last = phase, last
		return r
	}
	unhealthy := record.Result{Outcome: level.Unhealthy, Reason: "it hangs", Target: "v2", At: now, Back: "v1"}
	cancelled := record.Result{Outcome: level.Stuck, Reason: stuck, Target: "v2", At: now}
	for name, c := range map[string]struct {
		rec  *record.Record
		at   leg
		want ending
	}{
		"before the switch": {
			rec: with(hosttest.OnTheWay(record.VerbApply, "v1", "v2", host, "v1"), record.PhaseArmed, nil), at: legLeaving,
			want: ending{
				result: record.Result{
					Outcome: level.Stuck, Reason: why + "; the guard did a full reboot", Target: "v2", At: now,
				},
				event: record.EventFailed, failed: true,
			},
		},
		"it was cancelled": {
			rec: with(hosttest.OnTheWay(record.VerbApply, "v1", "v2", host, "v1"), record.PhaseStaged, &cancelled),
			at:  legLeaving,
			want: ending{
				result: record.Result{
					Outcome: level.Stuck, Reason: stuck + "; " + why + "; the guard did a full reboot", Target: "v2", At: now,
				},
				event: record.EventFailed,
			},
		},
		"in the new root": {
			rec: with(hosttest.OnTheWay(record.VerbApply, "v1", "v2", host, "v1"), record.PhaseTrying, &cancelled),
			at:  legTrying,
			want: ending{
				result: record.Result{
					Outcome: level.Unhealthy, Reason: why + "; the guard left it by a full reboot", Target: "v2", At: now,
					Back: "v1",
				},
				event: record.EventUnhealthy, bad: true,
			},
		},
		"in a resumed root": {
			rec: with(hosttest.OnTheWay(record.VerbResume, host, "v2", host, "v2"), record.PhaseTrying, nil), at: legTrying,
			want: ending{
				result: record.Result{
					Outcome: level.Unhealthy, Reason: why + "; the guard left it by a full reboot", Target: "v2", At: now,
					Back: host,
				},
				event: record.EventUnhealthy, bad: true,
			},
		},
		"while it rolls back": {
			rec: with(hosttest.OnTheWay(record.VerbBack, "v2", "v1", host, "v1"), record.PhaseArmed, &unhealthy),
			at:  legReturning,
			want: ending{
				result: record.Result{
					Outcome: level.Unhealthy, Target: "v2", At: now, Back: "v1",
					Reason: "it hangs; the soft reboot back did not complete, so the guard did a full reboot",
				},
				event: record.EventUnhealthy,
			},
		},
		"in the root that it rolled back to": {
			rec: with(hosttest.OnTheWay(record.VerbBack, "v2", "v1", host, "v1"), record.PhaseTrying, &unhealthy),
			at:  legReturned,
			want: ending{
				result: record.Result{
					Outcome: level.Unhealthy, Target: "v2", At: now, Back: "v1",
					Reason: "it hangs; the soft reboot back did not complete, so the guard did a full reboot",
				},
				event: record.EventUnhealthy,
			},
		},
	} {
		before, err := c.rec.Clone()
		if err != nil {
			t.Fatal(err)
		}
		if got := endByFullReboot(c.rec, c.at, why, now); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if before.Phase != c.rec.Phase || !reflect.DeepEqual(before.Last, c.rec.Last) {
			t.Errorf("%s: the record was changed", name)
		}
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
			return r.BeginRollback(record.CauseUnhealthy, back, record.Departure{Reason: "a unit failed"})
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
