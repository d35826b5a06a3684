package transition

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestGivenUpIsRecorded: a root that is lost once may have met a power cut; the second time it is given up, and the
// history says so.
func TestGivenUpIsRecorded(t *testing.T) {
	mv := newArrival(t)
	for attempt, want := range [][]string{{"failed"}, {"failed", "failed", "bad"}} {
		r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
		r.Phase, r.Attempts["v2"], r.Switch.Armed = record.PhaseArmed, attempt+1, true
		err := mv.recordGiveUp(r, record.CauseMissed, level.Rebooted, "a full reboot came in between")
		if !errors.Is(err, ErrSwitch) {
			t.Fatal(err)
		}
		events, err := mv.Records.History()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.Event)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("after attempt %d the history is %q, want %q", attempt+1, got, want)
		}
		if last := events[len(events)-1]; last.Event == "bad" && !strings.Contains(last.Reason, "tried 2 times") {
			t.Errorf("the reason is %q", last.Reason)
		}
	}
}

// TestRetreat: a rollback of the guard is taken over into the record once.
func TestRetreat(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	back := record.Switch{Verb: record.VerbBack, At: at}
	back.From, back.Target, back.BootID = "v2", "v1", "b"
	note := GuardNote{Left: "v2", Switch: back}
	if !note.Concerns(r, facts.Facts{BootID: "b"}) || note.Concerns(r, facts.Facts{BootID: "c"}) {
		t.Error("a note of the guard does not concern exactly the switch that it watched, in the same boot")
	}
	if err := r.Retreat(record.CauseTakenOver, back, record.Departure{Reason: "it hangs"}); err != nil {
		t.Fatal(err)
	}
	if note.Concerns(r, facts.Facts{BootID: "b"}) {
		t.Error("a note that is in the record already is taken over again")
	}
	if r.Phase != record.PhaseArmed || r.Switch.Target != "v1" || r.Bad["v2"].Reason != "it hangs" ||
		r.Last.Outcome != level.Unhealthy || r.Last.Back != "v1" {
		t.Errorf("the record is %+v, last %+v", r, r.Last)
	}
	r.Phase = record.PhaseTrying
	r.MarkBad("v1", record.Bad{Reason: "it hangs, too", At: at})
	if _, isBad := r.Bad["v1"]; isBad || !slices.Contains(r.Good, "v1") {
		t.Error("a root that the host rolled back to is marked bad")
	}
}

// TestGuardLeaves: what a guard mounts while it rolls back is no leftover; what is there later is.
func TestGuardLeaves(t *testing.T) {
	mv := newArrival(t)
	if err := mv.CheckGuardStays(t.Context()); err != nil {
		t.Errorf("without a note: %v", err)
	}
	n := &GuardNote{Left: "v2", Mount: 7}
	for name, c := range map[string]struct {
		now  facts.Mounted
		want bool
	}{
		"on its way":  {facts.Mounted{Root: "v2", Mount: 7}, true},
		"arrived":     {facts.Mounted{Root: "v1", Mount: 8}, false},
		"fallen back": {facts.Mounted{Root: "v2", Mount: 8}, false},
	} {
		if got := n.isLeaving(c.now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
