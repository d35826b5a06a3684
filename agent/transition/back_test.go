package transition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
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
	if err := r.BeginRollback(record.CauseTakenOver, back, record.Departure{Reason: "it hangs"}); err != nil {
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

// mountedAt are mounts of which only the one at / is asked for.
type mountedAt struct {
	machine.Mounts
	now facts.Mounted
	err error
}

func (m mountedAt) Mounted() (facts.Mounted, error) { return m.now, m.err }

// guardState is a systemd that is asked only for the unit of the guard.
type guardState struct {
	machine.Systemd
	active bool
	err    error
}

func (s guardState) UnitActive(_ context.Context, unit string) (bool, error) {
	if unit != pid1.GuardUnit {
		return false, fmt.Errorf("asked about %s", unit)
	}
	return s.active, s.err
}

// slowState is a systemd that takes so long to say that nothing shuts down that the guard begins to roll back.
type slowState struct {
	guardState
	meanwhile func() error
}

func (s slowState) ShuttingDown(context.Context) (bool, error) { return false, s.meanwhile() }

// nothingArmed are mounts of which none is armed; nothing is to be unmounted.
type nothingArmed struct{ mountedAt }

func (nothingArmed) Armed() (string, error) { return "", nil }

// TestGuardBeginsMeanwhile: a command does not take apart what the guard is putting together, although the guard began
// after the command had asked for it.
func TestGuardBeginsMeanwhile(t *testing.T) {
	const note = `{"left":"v2","mount":7,"reason":"it hangs","switch":{"from":"v2","target":"v1","verb":"back"}}`
	a := newArrival(t)
	a.Machine.Mounts = nothingArmed{mountedAt{now: facts.Mounted{Root: "v2", Mount: 7}}} // Clear would panic
	a.Machine.Systemd = slowState{guardState{active: true}, func() error {
		return os.WriteFile(a.Path(GuardNoteFile), []byte(note), 0o600)
	}}
	err := a.DisarmLeftover(t.Context(), facts.Facts{Root: "v2"}, &record.Record{Phase: record.PhaseTrying})
	if !errors.Is(err, ErrGuardLeaves) {
		t.Errorf("got %v, want that the guard leaves", err)
	}
}

// TestCheckGuardStays: only a guard that may be running and left a note about this very mount keeps the root from
// being judged; otherwise, what is there is a leftover.
func TestCheckGuardStays(t *testing.T) {
	const note = `{"left":"v2","mount":7,"reason":"it hangs","switch":{"from":"v2","target":"v1","verb":"back"}}`
	here := facts.Mounted{Root: "v2", Mount: 7}
	alive, broken := guardState{active: true}, errors.New("systemd does not answer")
	for name, c := range map[string]struct {
		note  string
		now   facts.Mounted
		guard guardState
		err   error // of what is mounted
		want  error
		says  string
	}{
		"no note":           {now: here, guard: alive},
		"the guard lives":   {note: note, now: here, guard: alive, want: ErrGuardLeaves, says: "it hangs"},
		"the guard is dead": {note: note, now: here},
		"nobody knows":      {note: note, now: here, guard: guardState{err: broken}, want: ErrGuardLeaves},
		"another root":      {note: note, now: facts.Mounted{Root: "v1", Mount: 8}, guard: alive},
		"another root, same mount": {
			note: note, now: facts.Mounted{Root: "v1", Mount: 7}, guard: alive,
		},
		"fallen back, new mount": {note: note, now: facts.Mounted{Root: "v2", Mount: 8}, guard: alive},
		"mounts cannot be read":  {note: note, err: fs.ErrPermission, want: fs.ErrPermission},
		"note is damaged":        {note: "{", now: here, guard: alive},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArrival(t)
			a.Machine.Mounts, a.Machine.Systemd = mountedAt{now: c.now, err: c.err}, c.guard
			if c.note != "" {
				if err := os.WriteFile(a.Path(GuardNoteFile), []byte(c.note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := a.CheckGuardStays(t.Context())
			if c.want == nil && c.says == "" {
				if err != nil {
					t.Errorf("got %v, want that the guard stays", err)
				}
				if _, err := os.Lstat(a.Path(GuardNoteFile)); c.note == "{" && err == nil {
					t.Error("the damaged note is still there")
				}
				return
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.says)
			}
			if errors.Is(err, ErrGuardLeaves) != errors.Is(err, record.ErrBlocked) {
				t.Errorf("%v: blocked and leaving are not the same", err)
			}
		})
	}
}
