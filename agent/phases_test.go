package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestMoves walks every way between the phases: nothing leads out of the phases, no cause is ambiguous, and from every
// phase the host can come to rest.
func TestMoves(t *testing.T) {
	phases := []Phase{PhaseIdle, PhaseStaged, PhaseArmed, PhaseTrying, PhaseGood}
	for _, from := range phases {
		comesToRest := slices.Contains(resting, from)
		for _, m := range Moves {
			if !slices.Contains(m.From, from) {
				continue
			}
			r := &Record{Phase: from, Good: []string{switcher.HostRoot}}
			if err := r.on(m.On); err != nil {
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
	if err := r.on(CauseStaged); err == nil || !strings.Contains(err.Error(), "from phase trying") || r.Phase != PhaseTrying {
		t.Errorf("a root that is tried was staged over: %v, %s", err, r.Phase)
	}
}

func onTheWay(verb, from, target string, good ...string) *Record {
	r := &Record{Phase: PhaseTrying, Good: good, Bad: map[string]Bad{}, Attempts: map[string]int{target: 1}, Failed: map[string]Failed{}, Switch: &Switch{Verb: verb}}
	r.Switch.From, r.Switch.Target, r.Switch.BootID = from, target, "b"
	return r
}

// TestStillAnnounced: what the arming step was called for may have been taken back, and asked for anew, meanwhile.
func TestStillAnnounced(t *testing.T) {
	r := onTheWay(verbApply, "v1", "v2", "host", "v1")
	r.Phase, r.Switch.At = PhaseArmed, time.Unix(1, 0)
	meant := *r.Switch
	if !r.announces(&meant) {
		t.Error("it is not announced")
	}
	if err := r.on(CauseWithdrawn); err != nil || r.announces(&meant) {
		t.Errorf("it was taken back (%v) and is announced", err)
	}
	if err := r.setOut(Switch{Verb: verbApply, At: time.Unix(2, 0)}); err != nil || r.announces(&meant) {
		t.Errorf("another one is announced (%v), and taken for it", err)
	}
}

// TestBootsOnce: a host that is cut off in the root it went back to boots the kernel for it, and not again after a boot.
func TestBootsOnce(t *testing.T) {
	back, resumed := onTheWay(verbBack, "v2", "v1", "host", "v1"), onTheWay(verbBack, "v1", "host", "host", "v1")
	resumed.Resume = &Resume{Root: "v1", Attempts: 1}
	for name, c := range map[string]struct {
		rec  *Record
		want bool
	}{
		"gone back to":             {back, true},
		"after a boot":             {resumed, false},
		"there is a way back":      {onTheWay(verbApply, "v1", "v2", "host", "v1"), false},
		"rolled back, by a person": {onTheWay(verbRollback, "v2", "v1", "host", "v1"), false},
	} {
		if got := c.rec.mayBoot(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestWayBack(t *testing.T) {
	for name, c := range map[string]struct {
		rec  *Record
		want string
	}{
		"to where it came from":             {onTheWay(verbApply, "v1", "v2", "host", "v1"), "v1"},
		"to the host, on the first image":   {onTheWay(verbApply, "host", "v1", "host"), "host"},
		"from a root that was not good":     {onTheWay(verbApply, "v3", "v2", "host", "v1"), "v1"},
		"from a root rolled back to":        {onTheWay(verbRollback, "v2", "v1", "host", "v1", "v2"), "v2"},
		"from the host resumed":             {onTheWay(verbResume, "host", "v1", "host", "v1"), "host"},
		"from a root gone back to: nowhere": {onTheWay(verbBack, "v2", "v1", "host", "v1"), ""},
		"into itself":                       {onTheWay(verbApply, "v1", "v1", "host", "v1"), "host"},
	} {
		if got := c.rec.wayBack(); got != c.want {
			t.Errorf("%s: back to %q, want %q", name, got, c.want)
		}
	}
	full := onTheWay(verbApply, "host", "v2", "host", "v1")
	if full.Switch.Back = "v1"; full.wayBack() != "v1" {
		t.Errorf("after a boot for v2 the way back leads to %s, want the root that was left for it", full.wayBack())
	}
}

func TestRetreat(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := onTheWay(verbApply, "v1", "v2", "host", "v1")
	back := Switch{Verb: verbBack, At: at}
	back.From, back.Target, back.BootID = "v2", "v1", "b"
	note := backNote{Left: "v2", Switch: back}
	if !note.concerns(r, facts.Facts{BootID: "b"}) || note.concerns(r, facts.Facts{BootID: "c"}) {
		t.Error("a note of the guard concerns the switch it watched, in the boot it was made in")
	}
	if err := r.retreat(CauseTakenOver, back, "it hangs"); err != nil {
		t.Fatal(err)
	}
	if note.concerns(r, facts.Facts{BootID: "b"}) {
		t.Error("a note that the record has is taken over again")
	}
	if r.Phase != PhaseArmed || r.Switch.Target != "v1" || r.Bad["v2"].Reason != "it hangs" || r.Last.Outcome != level.Unhealthy || r.Last.Back != "v1" {
		t.Errorf("the record is %+v, last %+v", r, r.Last)
	}
	r.Phase = PhaseTrying
	r.condemn("v1", "it hangs, too", at)
	if _, isBad := r.Bad["v1"]; isBad || !slices.Contains(r.Good, "v1") {
		t.Error("a root that is gone back to is not the image's fault")
	}
}

// TestLate: a switch that was taken back and came all the same is one that somebody has to judge, also where only the
// guard can.
func TestLate(t *testing.T) {
	taken := func() *Record {
		r := onTheWay(verbApply, "v1", "v2", "host", "v1")
		r.Phase = PhaseArmed
		if err := r.on(CauseWithdrawn); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := taken()
	if r.late("v1") || !r.late("v2") {
		t.Errorf("late: v1 %v, v2 %v", r.late("v1"), r.late("v2"))
	}
	a := testAgent(t)
	f := facts.Facts{Root: "v2", BootID: "b", SoftReboots: 1}
	writeFile(t, a.Machine.Root, switcher.RunDir+"/.keep", "")
	if err := r.on(CauseLate); err != nil || r.Phase != PhaseArmed {
		t.Errorf("%s, %v", r.Phase, err)
	}
	r = taken()
	back := Switch{Verb: verbBack, At: time.Unix(2, 0)}
	back.From, back.Target, back.BootID = "v2", "v1", "b"
	if !(&backNote{Left: "v2", Switch: back}).concerns(r, f) {
		t.Error("what the guard did is not taken over")
	}
	if err := r.retreat(CauseTakenOver, back, "it hangs"); err != nil || r.Bad["v2"].Reason != "it hangs" || r.Switch.Target != "v1" {
		t.Errorf("%+v, %v", r, err)
	}
	r = taken()
	if err := a.recordBoot(r, trying, "systemd has not answered"); err != nil || !strings.Contains(r.Bad["v2"].Reason, "systemd has not answered") {
		t.Errorf("%+v, %v", r, err)
	}
	r.confirm("v2")
	if r.late("v2") {
		t.Error("a good root is taken for a late one")
	}
}

// TestGuardLeaves: what a guard does on its way out of a root is no leftover, and what it did before is.
func TestGuardLeaves(t *testing.T) {
	a := testAgent(t)
	if err := a.guardLeaves(t.Context()); err != nil {
		t.Errorf("without a note: %v", err)
	}
	n := &backNote{Left: "v2", Mount: 7}
	for name, c := range map[string]struct {
		now  facts.Mounted
		want bool
	}{
		"on its way":  {facts.Mounted{Root: "v2", Mount: 7}, true},
		"arrived":     {facts.Mounted{Root: "v1", Mount: 8}, false},
		"fallen back": {facts.Mounted{Root: "v2", Mount: 8}, false},
	} {
		if got := n.leaves(c.now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestGiveUpCountsAttempts(t *testing.T) {
	at := time.Now()
	r := onTheWay(verbApply, "v1", "v2", "host", "v1")
	r.Staged = "v2"
	if err := r.giveUp(CauseLeft, level.Rebooted, "power", at); err != nil || len(r.Bad) != 0 || r.Phase != PhaseStaged {
		t.Errorf("after one power cut: %+v, %v", r, err)
	}
	again := *r.Switch
	if err := r.setOut(again); err != nil || r.Attempts["v2"] != 2 {
		t.Fatalf("attempts are %v, %v", r.Attempts, err)
	}
	if err := r.giveUp(CauseMissed, level.NotArmed, "no space", at); err != nil || len(r.Bad) != 0 || r.Attempts["v2"] != 1 {
		t.Errorf("a root that was not armed never ran: %+v, %v", r, err)
	}
	again.Armed = true
	if err := r.setOut(again); err != nil {
		t.Fatal(err)
	}
	if err := r.giveUp(CauseMissed, level.Rebooted, "power", at); err != nil || !strings.Contains(r.Bad["v2"].Reason, "tried 2 times") {
		t.Errorf("after two power cuts: %+v, %v", r.Bad, err)
	}
}

func TestResumeDecides(t *testing.T) {
	host := facts.Facts{Root: switcher.HostRoot, Systemd: 257}
	disk := host // appeared since the last switch: the shutdown would hang at every boot
	disk.DiskUnits = []string{"systemd-cryptsetup@data.service"}
	resting := func(good ...string) *Record { return &Record{Phase: PhaseGood, Good: good} }
	tired := resting("host", "v1")
	tired.Resume = &Resume{Root: "v1", Attempts: maxAttempts}
	once := resting("host", "v1")
	once.Resume = &Resume{Root: "v1", Attempts: 1}
	other := resting("host", "v1", "v2")
	other.Resume = &Resume{Root: "v1", Attempts: maxAttempts}
	landed := resting("host", "v1")
	landed.Last = &Result{Outcome: level.Landed, Target: "v2"}
	for name, c := range map[string]struct {
		rec      *Record
		facts    facts.Facts
		landed   bool
		to, verb string
	}{
		"last good root":               {resting("host", "v1"), host, false, "v1", verbResume},
		"nothing but the host":         {resting("host"), host, false, "", ""},
		"an image runs":                {resting("host", "v1"), facts.Facts{Root: "v1"}, false, "", ""},
		"failed once":                  {once, host, false, "v1", verbResume},
		"failed twice":                 {tired, host, false, "", ""},
		"another failed twice":         {other, host, false, "v2", verbResume},
		"the host itself is tried":     {&Record{Phase: PhaseTrying, Good: []string{"host", "v1"}}, host, false, "", ""},
		"booted for it":                {landed, host, true, "v2", verbApply},
		"booted for it at a boot past": {landed, host, false, "v1", verbResume},
		"the shutdown would hang":      {resting("host", "v1"), disk, false, "", ""},
		"it would hang, booted for it": {landed, disk, true, "", ""},
	} {
		to, verb, why := c.rec.resume(c.facts, c.landed)
		if to != c.to || verb != c.verb || why == "" {
			t.Errorf("%s: to %q by %q because %q, want %q by %q", name, to, verb, why, c.to, c.verb)
		}
		if len(c.facts.DiskUnits) > 0 && !strings.Contains(why, "x-initrd.attach") {
			t.Errorf("%s: %q does not say what to do", name, why)
		}
	}
}

// TestOlderRecords: an agent of before the way back wrote these, and has to read what this one writes after a roll back.
func TestOlderRecords(t *testing.T) {
	old := `{"schema":"updatectl.record/v1","phase":"armed","good":["host"],"switch":{"from":"host","target":"v1","boot_id":"b","soft_reboots":0,"verb":"apply","at":"2026-01-02T03:04:05Z"}}`
	r := &Record{}
	if err := parseRecord([]byte(old), r); err != nil {
		t.Fatal(err)
	}
	if err := r.on(CauseArrived); err != nil || r.wayBack() != "host" {
		t.Errorf("an older record goes on to %s and back to %q, %v", r.Phase, r.wayBack(), err)
	}
	r.Attempts["v1"]++ // made where an older agent left them out
}
