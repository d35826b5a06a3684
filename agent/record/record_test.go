package record

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/network"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestGoodRoots(t *testing.T) {
	r := &Record{Good: []string{"host"}}
	for _, step := range []struct{ confirm, good, back string }{
		{"v1", "host v1", "host"},
		{"v2", "host v1 v2", "v1"},
		{"v3", "host v2 v3", "v2"}, // v1 is no longer kept
		{"v2", "host v2", "host"},  // rolled back
		{"v4", "host v2 v4", "v2"},
		{"host", "host", ""},
	} {
		r.MarkGood(step.confirm)
		if got := strings.Join(r.Good, " "); got != step.good {
			t.Errorf("after %s: good %q, want %q", step.confirm, got, step.good)
		}
		if got := r.PreviousGood(step.confirm); got != step.back {
			t.Errorf("after %s: back %q, want %q", step.confirm, got, step.back)
		}
	}
	r = &Record{Good: []string{"host", "v1"}}
	if got := r.PreviousGood("v2"); got != "v1" {
		t.Errorf("from a root that is not good, back is %q, want the latest good one", got)
	}
}

func TestNeeded(t *testing.T) {
	r := &Record{Phase: PhaseArmed, Good: []string{"host", "v1"}, Staged: "v3", Pinned: []string{"p", "v1"},
		Switch: &Switch{}}
	r.Switch.From, r.Switch.Target = "v1", "v3"
	if got, want := r.Needed("v2"), []string{"p", "v1", "v2", "v3"}; !slices.Equal(got, want) {
		t.Errorf("needed %v, want %v", got, want)
	}
}

func TestRecordSurvivesWriting(t *testing.T) {
	s := testStore(t)
	r, err := s.Read()
	if err != nil || r.LastGood() != switcher.HostRoot || r.Phase != PhaseIdle {
		t.Fatalf("the first record is %+v, %v", r, err)
	}
	r.Bad["v2"] = Bad{Reason: "no network", At: s.Now().UTC().Round(time.Second)}
	r.MarkGood("v1")
	if err := s.Write(r); err != nil {
		t.Fatal(err)
	}
	again, err := s.Read()
	if err != nil || again.LastGood() != "v1" || again.Bad["v2"] != r.Bad["v2"] {
		t.Errorf("read back %+v, %v", again, err)
	}
}

func TestRecordOfANewerAgent(t *testing.T) {
	var r Record
	text := `{"schema":"updatectl.record/v2","phase":"good","good":["host","v9"],"quorum":{"a":1}}`
	if err := parseRecord([]byte(text), &r); err != nil || r.LastGood() != "v9" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBrokenRecords(t *testing.T) {
	for text, want := range map[string]string{
		``:                                  "unexpected end",
		`{"phase":"good"`:                   "unexpected end",
		`{"phase":"good","good":[]}`:        "names no good root",
		`{"phase":"armed","good":["host"]}`: "names no switch",
	} {
		if err := parseRecord([]byte(text), &Record{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzRecord: whatever is accepted as a record survives being written, names a root to go on to, and never one to roll
// back to from itself.
func FuzzRecord(f *testing.F) {
	for text, accepted := range map[string]bool{
		`{}`:                                false,
		`{"phase":"armed","good":["host"]}`: false,
		`{"phase":"armed","good":["host"],"switch":{"target":"v2","from":"host"}}`:                         true,
		`{"good":["host"],"bad":null}`:                                                                     true,
		`{"good":["host","v1","v2"],"pinned":["p","host",""],"staged":"v3"}`:                               true,
		`{"good":["host","v1"],"phase":"trying","switch":{"target":"v1","from":"v1","verb":"back","x":1}}`: true,
	} {
		if err := parseRecord([]byte(text), &Record{}); (err == nil) != accepted {
			f.Fatalf("%s: %v, want that it is accepted: %v", text, err, accepted)
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := &Record{}
		if parseRecord(text, r) != nil {
			return
		}
		c, err := r.Clone()
		if err != nil {
			t.Fatalf("it cannot be read again: %v", err)
		}
		one, err := json.Marshal(r)
		two, cerr := json.Marshal(c)
		if err != nil || cerr != nil || !bytes.Equal(one, two) {
			t.Errorf("it is %s, and when it was written and read %s (%v, %v)", one, two, err, cerr)
		}
		for _, running := range append(slices.Clone(r.Good), "x") {
			to := r.PreviousGood(running)
			if to != "" && (to == running || !slices.Contains(r.Good, to)) {
				t.Errorf("from %q the rollback goes to %q, good are %q", running, to, r.Good)
			}
		}
		if r.Moving() && r.Switch != nil && r.RollbackTarget() == r.Switch.Target && r.Switch.Target != "" {
			t.Errorf("the way back from %q leads to itself", r.Switch.Target)
		}
		needed := r.Needed("x")
		for _, id := range append(slices.Clone(r.Good), r.Staged, "x") {
			if id != "" && id != switcher.HostRoot && !slices.Contains(needed, id) {
				t.Errorf("gc may remove %q: needed are %q", id, needed)
			}
		}
		if slices.Contains(needed, switcher.HostRoot) || slices.Contains(needed, "") {
			t.Errorf("gc is to keep %q", needed)
		}
		if r.MarkGood("y"); r.LastGood() != "y" {
			t.Errorf("y is good, and the last good root is %q", r.LastGood())
		}
	})
}

// TestRollbackAfterFullReboot: a full reboot lands on the host root; a rollback from there goes to the last good root.
func TestRollbackAfterFullReboot(t *testing.T) {
	r := &Record{Good: []string{switcher.HostRoot, "v1"}}
	if got := r.PreviousGood(switcher.HostRoot); got != "v1" {
		t.Errorf("the rollback goes to %q, want v1", got)
	}
}

// TestRecordKeepsWhatANewerAgentAdded: fields that this agent does not know stay in the record that it rewrites.
func TestRecordKeepsWhatANewerAgentAdded(t *testing.T) {
	s := testStore(t)
	const text = `{
		"schema":"updatectl.record/v1","phase":"good","good":["host"],"later":{"a":[1]},
		"switch":{"from":"host","target":"v1","verb":"apply","at":"2026-01-02T03:04:05Z","sooner":true}
	}`
	testtree.File(t, "", s.Path(RecordFile), text)
	for range 2 {
		r, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		if r.Switch.From != "host" || r.Attempts == nil {
			t.Fatalf("%+v", r)
		}
		if err := s.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	var got struct {
		Later  struct{ A []int }
		Switch struct{ Sooner bool }
	}
	written, err := os.ReadFile(s.Path(RecordFile))
	if err == nil {
		err = json.Unmarshal(written, &got)
	}
	if err != nil || !got.Switch.Sooner || !slices.Equal(got.Later.A, []int{1}) {
		t.Errorf("%v: %s", err, written)
	}
	if n := strings.Count(string(written), "\"from\""); n != 1 {
		t.Errorf("\"from\" is there %d times: %s", n, written)
	}
}

// TestNamedWayBack: after a rollback to a root that the operator named, that root is the last good one; after an
// automatic rollback, it is not.
func TestNamedWayBack(t *testing.T) {
	for named, want := range map[bool]string{false: "host v1", true: "host"} {
		r := &Record{Phase: PhaseTrying, Good: []string{"host", "v1"}, Bad: map[string]Bad{}, Attempts: map[string]int{}}
		r.Switch = &Switch{Verb: VerbBack, Named: named, Expectation: level.Expectation{From: "v2", Target: "host"}}
		if err := r.Proved("host"); err != nil || strings.Join(r.Good, " ") != want {
			t.Errorf("named %v: good are %v, %v; want %s", named, r.Good, err, want)
		}
	}
}

// TestSwitchIsMissing: a phase of a host that moves comes with a switch, also a phase that only a newer agent knows.
func TestSwitchIsMissing(t *testing.T) {
	for _, phase := range []Phase{PhaseArmed, PhaseTrying, "of a newer agent"} {
		var r Record
		if err := parseRecord([]byte(`{"phase": "`+string(phase)+`", "good": ["host"]}`), &r); err == nil {
			t.Errorf("a record without a switch is read in phase %q", phase)
		}
	}
	var r Record
	if err := parseRecord([]byte(`{"good": ["host"]}`), &r); err != nil || r.Moving() {
		t.Errorf("a record without a phase: %v, moving %v", err, r.Moving())
	}
}

// TestResumeNeverRequested: a resume that was recorded and never requested is no attempt.
func TestResumeNeverRequested(t *testing.T) {
	r := &Record{Phase: PhaseGood, Good: []string{"host", "v1"}, Attempts: map[string]int{}}
	for range 2 {
		if err := r.BeginSwitch(Switch{Verb: VerbResume, Expectation: level.Expectation{From: "host",
			Target: "v1"}}); err != nil {
			t.Fatal(err)
		}
		if err := r.Advance(CauseWithdrawn); err != nil {
			t.Fatal(err)
		}
		r.Resume = r.Resume.Forgive()
	}
	if r.Resume != nil {
		t.Errorf("the record counts %+v", r.Resume)
	}
}

// TestLongLine: a line that no event has does not hide the others.
func TestLongLine(t *testing.T) {
	s := testStore(t)
	s.AppendEvent(Event{Event: EventGood, Root: "v1"})
	if err := s.Disk.AppendLine(s.Path(historyFile), bytes.Repeat([]byte("x"), 3*maxEvent)); err != nil {
		t.Fatal(err)
	}
	s.AppendEvent(Event{Event: EventGood, Root: "v2"})
	events, err := s.History()
	if err != nil || len(events) != 2 || events[1].Root != "v2" {
		t.Errorf("the history has %+v, %v", events, err)
	}
}

// TestNoRecordInFile: what JSON takes for nothing is a damaged record, not that of a new host.
func TestNoRecordInFile(t *testing.T) {
	for _, text := range []string{"null", " null\n", "[]", "", "{}"} {
		var r Record
		if err := parseRecord([]byte(text), &r); err == nil {
			t.Errorf("%q is read as %+v", text, r)
		}
	}
}

// TestWhenGood: what a good root was like is remembered as long as it is good, and in bounds. A root that is resumed
// is compared with that.
func TestWhenGood(t *testing.T) {
	uplinks := []network.Uplink{{Interface: "eth0", Manager: "NetworkManager"}}
	r := &Record{Phase: PhaseGood, Good: []string{"host", "v1"}, Attempts: map[string]int{}}
	r.WhenGood = r.WhenGood.With("host", health.State{Failed: []string{"nftables.service"}}, r.Good)
	many := health.State{Failed: slices.Repeat([]string{"x.service"}, 2*maxFailedUnits), Uplinks: uplinks}
	r.WhenGood = r.WhenGood.With("v1", many, r.Good)
	r.WhenGood = r.WhenGood.With("v2", health.State{Failed: []string{"app.service"}}, r.Good)
	if got := r.WhenGood; len(got) != 2 || len(got["v1"].Failed) != maxFailedUnits ||
		got["host"].Failed[0] != "nftables.service" {
		t.Errorf("remembered %+v", got)
	}
	sw := Switch{Verb: VerbApply, Expectation: level.Expectation{From: "v1", Target: "v2"}}
	if sw.Before.Unknown = true; r.BeginSwitch(sw) != nil || len(r.WhenGood["v1"].Failed) != maxFailedUnits {
		t.Error("what nobody observed is taken for no failed units")
	}
	r.Phase, sw.Before.Unknown = PhaseGood, false
	if err := r.BeginSwitch(sw); err != nil || r.WhenGood["v1"].Failed != nil {
		t.Errorf("no unit had failed when v1 was left: %+v, %v", r.WhenGood, err)
	}
	if got := r.WhenGood["v1"].Uplinks; len(got) != 1 {
		t.Errorf("no uplink was seen when v1 was left, and those before are forgotten: %+v", got)
	}
	if got := r.Switch.CompareWith(nil).FailedWhenGood; len(got) != maxFailedUnits {
		t.Errorf("what was repaired in v1 would fail v2: %v", got)
	}
	now := health.Before{Uplinks: []network.Uplink{{Interface: "eth0", Manager: "ifupdown"}}}
	for verb, want := range map[string]string{VerbResume: "NetworkManager", VerbRollback: "ifupdown"} {
		r.Switch = &Switch{Verb: verb, Expectation: level.Expectation{From: "host", Target: "v1"}, Before: now}
		if got := r.Switch.CompareWith(r.WhenGood).Uplinks; len(got) != 1 || got[0].Manager != want {
			t.Errorf("%s is compared with %+v, want %s", verb, got, want)
		}
	}
	r.MarkGood("host")
	if r.WhenGood = r.WhenGood.With("host", health.State{}, r.Good); len(r.WhenGood) != 1 {
		t.Errorf("still remembered: %+v", r.WhenGood)
	}
}
