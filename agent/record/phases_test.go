package record

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestMoves makes every move: each ends in a known phase, no cause is ambiguous, and from every phase the host can
// come to rest.
func TestMoves(t *testing.T) {
	phases := []Phase{PhaseIdle, PhaseStaged, PhaseArmed, PhaseTrying, PhaseGood}
	for _, from := range phases {
		comesToRest := slices.Contains(restingPhases, from)
		for _, m := range Moves {
			if !slices.Contains(m.From, from) {
				continue
			}
			r := &Record{Phase: from, Good: []string{switcher.HostRoot}}
			if err := r.Advance(m.On); err != nil {
				t.Errorf("%s, %s: %v", from, m.On, err)
			}
			want := m.To
			if want == phaseResting {
				want, comesToRest = PhaseGood, true
			}
			if r.Phase != want || !slices.Contains(phases, r.Phase) {
				t.Errorf("%s, %s: the phase is %s, want %s", from, m.On, r.Phase, want)
			}
		}
		if !comesToRest {
			t.Errorf("from %s the host never comes to rest", from)
		}
	}
	seen := map[string]bool{}
	for _, m := range Moves {
		for _, from := range m.From {
			if key := string(from) + " " + string(m.On); seen[key] {
				t.Errorf("%s stands in the table twice", key)
			} else {
				seen[key] = true
			}
		}
	}
	r := &Record{Phase: PhaseTrying}
	if err := r.Advance(CauseStaged); err == nil || !strings.Contains(err.Error(), "from phase trying") ||
		r.Phase != PhaseTrying {
		t.Errorf("a root was staged while another is being tried: %v, %s", err, r.Phase)
	}
}

// TestStillAnnounced: by the time that the arming step runs, its switch may have been withdrawn, and another asked
// for.
func TestStillAnnounced(t *testing.T) {
	r := onTheWay(VerbApply, "v1", "v2", "host", "v1")
	r.Phase, r.Switch.At = PhaseArmed, time.Unix(1, 0)
	meant := *r.Switch
	if !meant.AnnouncedBy(r) {
		t.Error("it is not announced")
	}
	if err := r.Advance(CauseWithdrawn); err != nil || meant.AnnouncedBy(r) {
		t.Errorf("it was withdrawn (%v) and is announced", err)
	}
	if err := r.BeginSwitch(Switch{Verb: VerbApply, At: time.Unix(2, 0)}); err != nil || meant.AnnouncedBy(r) {
		t.Errorf("a later switch is announced (%v), and mistaken for it", err)
	}
}

// TestBootsOnce: a host that is cut off in the root that it rolled back to may do one full reboot, and no second one.
func TestBootsOnce(t *testing.T) {
	back, resumed := onTheWay(VerbBack, "v2", "v1", "host", "v1"), onTheWay(VerbBack, "v1", "host", "host", "v1")
	resumed.Resume = &Resume{Root: "v1", Attempts: 1}
	for name, c := range map[string]struct {
		rec  *Record
		want bool
	}{
		"rolled back":                 {back, true},
		"after a full reboot":         {resumed, false},
		"it can roll back":            {onTheWay(VerbApply, "v1", "v2", "host", "v1"), false},
		"rolled back by the operator": {onTheWay(VerbRollback, "v2", "v1", "host", "v1"), false},
	} {
		if got := c.rec.MayFullReboot(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestWayBack(t *testing.T) {
	for name, c := range map[string]struct {
		rec  *Record
		want string
	}{
		"to where it came from":             {onTheWay(VerbApply, "v1", "v2", "host", "v1"), "v1"},
		"to the host, on the first image":   {onTheWay(VerbApply, "host", "v1", "host"), "host"},
		"from a root that was not good":     {onTheWay(VerbApply, "v3", "v2", "host", "v1"), "v1"},
		"from a root rolled back to":        {onTheWay(VerbRollback, "v2", "v1", "host", "v1", "v2"), "v2"},
		"from a resumed root":               {onTheWay(VerbResume, "host", "v1", "host", "v1"), "host"},
		"after an automatic rollback: none": {onTheWay(VerbBack, "v2", "v1", "host", "v1"), ""},
		"into itself":                       {onTheWay(VerbApply, "v1", "v1", "host", "v1"), "host"},
	} {
		if got := c.rec.RollbackTarget(); got != c.want {
			t.Errorf("%s: back to %q, want %q", name, got, c.want)
		}
	}
	full := onTheWay(VerbApply, "host", "v2", "host", "v1")
	if full.Switch.Back = "v1"; full.RollbackTarget() != "v1" {
		t.Errorf("after a full reboot for v2 the way back leads to %s, want the root that was left for it",
			full.RollbackTarget())
	}
}

func TestGiveUpCountsAttempts(t *testing.T) {
	at := time.Now()
	r := onTheWay(VerbApply, "v1", "v2", "host", "v1")
	r.Staged = "v2"
	if err := r.GiveUp(CauseLeft, level.Rebooted, "power", at); err != nil || len(r.Bad) != 0 || r.Phase != PhaseStaged {
		t.Errorf("after one power cut: %+v, %v", r, err)
	}
	again := *r.Switch
	if err := r.BeginSwitch(again); err != nil || r.Attempts["v2"] != 2 {
		t.Fatalf("attempts are %v, %v", r.Attempts, err)
	}
	if err := r.GiveUp(CauseMissed, level.NotArmed, "no space", at); err != nil || len(r.Bad) != 0 ||
		r.Attempts["v2"] != 1 {
		t.Errorf("a switch that was never armed counts as an attempt: %+v, %v", r, err)
	}
	again.Armed = true
	if err := r.BeginSwitch(again); err != nil {
		t.Fatal(err)
	}
	if err := r.GiveUp(CauseMissed, level.Rebooted, "power", at); err != nil ||
		!strings.Contains(r.Bad["v2"].Reason, "tried 2 times") {
		t.Errorf("after two power cuts: %+v, %v", r.Bad, err)
	}
}

func TestResumeDecides(t *testing.T) {
	host := facts.Facts{Root: switcher.HostRoot, Systemd: 257}
	disk := host // appeared since the last switch: the shutdown would hang after every full reboot
	disk.DiskUnits = []string{"systemd-cryptsetup@data.service"}
	again := host
	again.SoftReboots = 1
	resting := func(good ...string) *Record { return &Record{Phase: PhaseGood, Good: good} }
	tired := resting("host", "v1")
	tired.Resume = &Resume{Root: "v1", Attempts: MaxAttempts}
	once := resting("host", "v1")
	once.Resume = &Resume{Root: "v1", Attempts: 1}
	other := resting("host", "v1", "v2")
	other.Resume = &Resume{Root: "v1", Attempts: MaxAttempts}
	landed := resting("host", "v1")
	landed.Last = &Result{Outcome: level.Landed, Target: "v2"}
	for name, c := range map[string]struct {
		rec      *Record
		facts    facts.Facts
		landed   bool
		to, verb string
	}{
		"last good root":               {resting("host", "v1"), host, false, "v1", VerbResume},
		"nothing but the host":         {resting("host"), host, false, "", ""},
		"an image runs":                {resting("host", "v1"), facts.Facts{Root: "v1"}, false, "", ""},
		"failed once":                  {once, host, false, "v1", VerbResume},
		"failed twice":                 {tired, host, false, "", VerbResume},
		"another failed twice":         {other, host, false, "v2", VerbResume},
		"the host root is tried":       {&Record{Phase: PhaseTrying, Good: []string{"host", "v1"}}, host, false, "", ""},
		"full reboot for v2":           {landed, host, true, "v2", VerbApply},
		"earlier full reboot for v2":   {landed, host, false, "v1", VerbResume},
		"the shutdown would hang":      {resting("host", "v1"), disk, false, "", VerbResume},
		"it would hang, landed for v2": {landed, disk, true, "", VerbResume},
		"a soft reboot by hand":        {resting("host", "v1"), again, false, "", ""},
	} {
		to, verb, why := c.rec.ResumeTarget(c.facts, c.landed)
		if to != c.to || verb != c.verb || why == "" {
			t.Errorf("%s: to %q by %q because %q, want %q by %q", name, to, verb, why, c.to, c.verb)
		}
		if len(c.facts.DiskUnits) > 0 && !strings.Contains(why, "x-initrd.attach") {
			t.Errorf("%s: %q does not say what to do", name, why)
		}
	}
}

// TestOlderRecords: a record of an agent that could not roll back yet is understood.
func TestOlderRecords(t *testing.T) {
	old := `{
		"schema":"updatectl.record/v1","phase":"armed","good":["host"],
		"switch":{"from":"host","target":"v1","boot_id":"b","soft_reboots":0,"verb":"apply","at":"2026-01-02T03:04:05Z"}
	}`
	r := &Record{}
	if err := parseRecord([]byte(old), r); err != nil {
		t.Fatal(err)
	}
	if err := r.Advance(CauseArrived); err != nil || r.RollbackTarget() != "host" {
		t.Errorf("an older record goes on to %s and back to %q, %v", r.Phase, r.RollbackTarget(), err)
	}
	r.Attempts["v1"]++ // panics unless parseRecord makes the maps that an older agent left out
}
