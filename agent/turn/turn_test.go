package turn

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/hook"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/level"
)

var noon = time.Date(2027, 3, 4, 12, 0, 0, 0, time.UTC)

// lockServer is a server with one slot. It counts what it is asked, and can be full or ill.
type lockServer struct {
	*httptest.Server
	asked []string
	held  string
	ill   bool
}

func newLockServer(t *testing.T) *lockServer {
	s := &lockServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Params struct{ ID, Group string } `json:"client_params"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		s.asked = append(s.asked, strings.TrimPrefix(r.URL.Path, "/v1/"))
		switch {
		case s.ill:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/v1/steady-state":
			if s.held == q.Params.ID {
				s.held = ""
			}
		case s.held != "" && s.held != q.Params.ID:
			w.WriteHeader(http.StatusConflict)
			w.Write([]byte(`{"kind":"failed_lock","value":"all slots are taken"}`))
		default:
			s.held = q.Params.ID
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// newTurn returns the turn of a host in an empty directory.
func newTurn(t *testing.T, url string) *Turn {
	t.Helper()
	m := machine.Host(t.TempDir(), record.StateDir)
	for _, dir := range []string{record.StateDir, "/etc/updatectl/hooks.d"} {
		if err := os.MkdirAll(m.Path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	id := []byte("0123456789abcdef0123456789abcdef\n")
	if err := os.WriteFile(m.Path("/etc/machine-id"), id, 0o644); err != nil {
		t.Fatal(err)
	}
	m.Now = func() time.Time { return noon }
	h := host.On(m, zap.NewNop())
	h.Config = config.Default()
	h.Config.FleetLock.URL = url
	return &Turn{h}
}

// addHook adds a hook that keeps what it was called for, and vetoes with a reason unless that is "".
func addHook(t *testing.T, turn *Turn, veto string) (called func() []string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	script := "#!/bin/sh\necho \"$1 $UPDATECTL_VERSION $UPDATECTL_REASON\" >>" + log + "\n"
	if veto != "" {
		script += "case $1 in before-*) echo '" + veto + "'; exit 1; esac\n"
	}
	if err := os.WriteFile(turn.Path("/etc/updatectl/hooks.d/test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		text, _ := os.ReadFile(log)
		os.Remove(log)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	}
}

var about = hook.About{From: "sha256-1", FromVersion: "1", To: "sha256-2", Version: "2", Level: "soft"}

// arrived returns a record of a host that runs a good root after a switch from sha256-1 to sha256-2.
func arrived(outcome level.Outcome, good ...string) *record.Record {
	rec := &record.Record{Phase: record.PhaseGood, Good: good,
		Last: &record.Result{Outcome: outcome, Reason: "no network", Target: about.To, At: noon.Add(time.Second)}}
	rec.Switch = &record.Switch{Verb: record.VerbApply}
	return rec
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestGoodSwitch(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	called := addHook(t, turn, "")
	if err := turn.Begin(t.Context(), about, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, "before the switch, the hook was called for", called(), "before-switch 2")
	if slot, err := turn.Slot(); err != nil || slot == nil || slot.Target != about.To || server.held == "" {
		t.Fatalf("the slot is %+v, %v; the server has %q", slot, err, server.held)
	}
	moving := arrived(level.Switched, "host", "sha256-1")
	moving.Phase = record.PhaseTrying
	if err := turn.Arrived(t.Context(), about.To, moving); !errors.Is(err, ErrNotOver) || server.held == "" {
		t.Fatalf("while the root is tried: %v, the server has %q", err, server.held)
	}
	for range 2 { // the second time, there is nothing left to tell
		if err := turn.Arrived(t.Context(), about.To, arrived(level.Switched, "host", "sha256-1", "sha256-2")); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "after it, for", called(), "good 2")
	equal(t, "the server was asked", server.asked, "pre-reboot", "steady-state")
	if slot, err := turn.Slot(); err != nil || slot != nil {
		t.Errorf("the slot is %+v, %v", slot, err)
	}
}

// TestFailedSwitchKeepsTheSlot: no other host follows into a bad release, until a person says so.
func TestFailedSwitchKeepsTheSlot(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	called := addHook(t, turn, "")
	if err := turn.Begin(t.Context(), about, nil); err != nil {
		t.Fatal(err)
	}
	failed := arrived(level.Unhealthy, "host", "sha256-1")
	log, events := eventtest.Log(t)
	turn.Log = log
	for range 2 {
		if err := turn.Arrived(t.Context(), "sha256-1", failed); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "the events are", events(), "slot-kept")
	equal(t, "the hook was called for", called(), "before-switch 2", "bad 2 no network", "rolled-back 2 no network")
	slot, err := turn.Slot()
	if err != nil || slot == nil || slot.Failed != "no network" || server.held == "" {
		t.Fatalf("the slot is %+v, %v; the server has %q", slot, err, server.held)
	}
	// The fixed release goes through with the same slot.
	fixed := about
	fixed.To, fixed.Version = "sha256-3", "3"
	if err := turn.Begin(t.Context(), fixed, failed.Last); err != nil {
		t.Fatal(err)
	}
	rec := arrived(level.Switched, "host", "sha256-1", "sha256-3")
	rec.Last.Target, rec.Last.At = fixed.To, noon.Add(time.Hour)
	if err := turn.Arrived(t.Context(), fixed.To, rec); err != nil || server.held != "" {
		t.Errorf("Arrived: %v; the server has %q", err, server.held)
	}
	equal(t, "after the fixed release, the events are", events())
}

func TestOperatorGivesBack(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	if err := turn.Begin(t.Context(), about, nil); err != nil {
		t.Fatal(err)
	}
	if err := turn.Arrived(t.Context(), "sha256-1", arrived(level.Unhealthy, "host", "sha256-1")); err != nil {
		t.Fatal(err)
	}
	if slot, err := turn.GiveBack(t.Context()); err != nil || slot == nil || server.held != "" {
		t.Errorf("GiveBack: %+v, %v; the server has %q", slot, err, server.held)
	}
	if slot, err := turn.GiveBack(t.Context()); err != nil || slot != nil {
		t.Errorf("the second GiveBack: %+v, %v", slot, err)
	}
}

func TestVetoGivesTheSlotBack(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	called := addHook(t, turn, "the backup is running")
	err := turn.Begin(t.Context(), about, nil)
	if !errors.Is(err, ErrHook) || !errors.Is(err, record.ErrBlocked) ||
		!strings.Contains(err.Error(), "the backup is running") {
		t.Errorf("Begin: %v", err)
	}
	got := called()
	if len(got) != 2 || !strings.HasPrefix(got[0], "before-switch") || !strings.HasPrefix(got[1], "called-off 2 ") {
		t.Errorf("the hook was called for %q", got)
	}
	if slot, _ := turn.Slot(); slot != nil || server.held != "" {
		t.Errorf("the slot is %+v; the server has %q", slot, server.held)
	}
}

// TestCrashBeforeTheSwitch: a host that lost its power while it was drained comes back to its users.
func TestCrashBeforeTheSwitch(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	called := addHook(t, turn, "")
	before := arrived(level.Switched, "host", "sha256-1")                  // how an earlier switch ended
	before.Last.Target, before.Last.At = "sha256-1", noon.AddDate(3, 0, 0) // by a clock that was wrong
	if err := turn.Begin(t.Context(), about, before.Last); err != nil {
		t.Fatal(err)
	}
	called()
	if err := turn.Arrived(t.Context(), "sha256-1", before); err != nil {
		t.Fatal(err)
	}
	equal(t, "the hook was called for", called(), "called-off 2 no network")
	if slot, _ := turn.Slot(); slot != nil || server.held != "" {
		t.Errorf("the slot is %+v; the server has %q", slot, server.held)
	}
}

// TestServerAway: whether a server that does not answer gave a slot is unknown, so the host gives it back later.
func TestServerAway(t *testing.T) {
	server := newLockServer(t)
	server.ill = true
	turn := newTurn(t, server.URL)
	clock := noon
	turn.Machine.Now = func() time.Time { clock = clock.Add(time.Minute); return clock } // patience is over at once
	err := turn.Begin(t.Context(), about, nil)
	if !errors.Is(err, ErrLock) || !errors.Is(err, fleetlock.ErrServer) {
		t.Errorf("Begin: %v", err)
	}
	if slot, err := turn.Slot(); err != nil || slot == nil || slot.Wants != fleetlock.GiveBack {
		t.Fatalf("the slot is %+v, %v", slot, err)
	}
	idle := arrived(level.Switched, "host", "sha256-1")
	if err := turn.Arrived(t.Context(), "sha256-1", idle); !errors.Is(err, fleetlock.ErrServer) {
		t.Errorf("Arrived while it is away: %v", err)
	}
	server.ill = false
	if err := turn.Arrived(t.Context(), "sha256-1", idle); err != nil {
		t.Errorf("Arrived: %v", err)
	}
	if slot, _ := turn.Slot(); slot != nil {
		t.Errorf("the slot is %+v", slot)
	}
}

func TestFullServer(t *testing.T) {
	server := newLockServer(t)
	server.held = "another host"
	turn := newTurn(t, server.URL)
	clock := noon
	turn.Machine.Now = func() time.Time { clock = clock.Add(time.Minute); return clock }
	err := turn.Begin(t.Context(), about, nil)
	if !errors.Is(err, ErrLock) || !strings.Contains(err.Error(), "all slots are taken") {
		t.Errorf("Begin: %v", err)
	}
	if slot, err := turn.Slot(); err != nil || slot != nil || server.held != "another host" {
		t.Errorf("the slot is %+v, %v; the server has %q", slot, err, server.held)
	}
}

func TestMay(t *testing.T) {
	turn := newTurn(t, "")
	r := &release.Release{}
	r.Version = "2"
	r.Rollout = &release.Rollout{Start: noon.Add(time.Hour), Duration: time.Hour}
	if err := turn.May(r, false); !errors.Is(err, ErrRollout) || !errors.Is(err, record.ErrBlocked) {
		t.Errorf("before the rollout: %v", err)
	}
	r.Rollout.Start = noon.Add(-2 * time.Hour)
	if err := turn.May(r, false); err != nil {
		t.Errorf("after the rollout: %v", err)
	}
	r.Rollout.Stopped = "it eats disks"
	if err := turn.May(r, false); !errors.Is(err, ErrRollout) || !strings.HasSuffix(err.Error(), "it eats disks") {
		t.Errorf("after a stop: %v", err)
	}
	if err := turn.May(r, true); err != nil {
		t.Errorf("ignoring the stop: %v", err)
	}
	events, err := turn.Records.History()
	if err != nil || len(events) != 1 || events[0].Event != EventIgnored ||
		!strings.Contains(events[0].Reason, "it eats disks") {
		t.Errorf("the history has %+v, %v", events, err)
	}
	if _, err := pause.Set(turn.Host, pause.Pause{Reason: "holidays"}); err != nil {
		t.Fatal(err)
	}
	if err := turn.May(r, true); !errors.Is(err, pause.ErrPaused) {
		t.Errorf("paused: %v", err)
	}
}

// TestRollbackIsTold: an operator's rollback was not announced, and the hooks hear of it all the same.
func TestRollbackIsTold(t *testing.T) {
	turn := newTurn(t, "")
	called := addHook(t, turn, "")
	rec := arrived(level.Switched, "host", "sha256-1", "sha256-2")
	if err := turn.Arrived(t.Context(), "sha256-2", rec); err != nil {
		t.Fatal(err)
	}
	equal(t, "of what was before the first hook, it was called for", called())
	rec = arrived(level.Switched, "host", "sha256-1")
	rec.Switch.Verb, rec.Last.Target, rec.Last.At = record.VerbRollback, "sha256-1", noon.Add(-time.Hour)
	for range 2 {
		if err := turn.Arrived(t.Context(), "sha256-1", rec); err != nil {
			t.Fatal(err)
		}
	}
	if got := called(); len(got) != 1 || !strings.HasPrefix(got[0], "rolled-back") {
		t.Errorf("the hook was called for %q", got)
	}
}

// TestRestartInTheSameRoot: userspace restarted, for a live patch, and the host is back.
func TestRestartInTheSameRoot(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	called := addHook(t, turn, "")
	rec := arrived(level.Switched, "host", "sha256-2")
	same := about
	same.From = same.To
	if err := turn.Begin(t.Context(), same, rec.Last); err != nil {
		t.Fatal(err)
	}
	called()
	if err := turn.Arrived(t.Context(), same.To, rec); err != nil || server.held != "" {
		t.Errorf("Arrived: %v; the server has %q", err, server.held)
	}
	equal(t, "the hook was called for", called(), "good 2")
}

// TestInterrupted: hooks that did not all run hear of the event again.
func TestInterrupted(t *testing.T) {
	turn := newTurn(t, "")
	called := addHook(t, turn, "")
	if err := turn.Begin(t.Context(), about, nil); err != nil {
		t.Fatal(err)
	}
	called()
	good := arrived(level.Switched, "host", "sha256-1", "sha256-2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := turn.Arrived(ctx, about.To, good); !errors.Is(err, context.Canceled) {
		t.Errorf("Arrived: %v", err)
	}
	called()
	if err := turn.Arrived(t.Context(), about.To, good); err != nil {
		t.Fatal(err)
	}
	equal(t, "after an interruption, the hook was called for", called(), "good 2")
}

// TestPauseWhileHooksRun: an operator who pauses updates while the host is drained is heard.
func TestPauseWhileHooksRun(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	called := addHook(t, turn, "")
	script := "#!/bin/sh\n[ $1 != before-switch ] || echo '{\"reason\": \"wait\"}' > " +
		turn.Path(record.StateDir+"/pause.json") + "\n"
	if err := os.WriteFile(turn.Path("/etc/updatectl/hooks.d/0"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := turn.Begin(t.Context(), about, nil); !errors.Is(err, pause.ErrPaused) {
		t.Errorf("Begin: %v", err)
	}
	if got := called(); len(got) != 2 || !strings.HasPrefix(got[1], "called-off") || server.held != "" {
		t.Errorf("the hook was called for %q; the server has %q", got, server.held)
	}
}

// TestOtherGroup: a slot that is only to be given back does not keep a host from the group of today.
func TestOtherGroup(t *testing.T) {
	server := newLockServer(t)
	turn := newTurn(t, server.URL)
	if err := turn.Begin(t.Context(), about, nil); err != nil {
		t.Fatal(err)
	}
	slot, err := turn.Slot()
	if err != nil {
		t.Fatal(err)
	}
	slot.Wants = fleetlock.GiveBack
	if err := fleetlock.Write(turn.Machine.Disk, turn.Path(record.StateDir), *slot); err != nil {
		t.Fatal(err)
	}
	turn.Config.Fleet.Group = "other"
	if err := turn.Begin(t.Context(), about, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, "the server was asked", server.asked, "pre-reboot", "steady-state", "pre-reboot")
}

// TestNoMachineID: hosts that do not know who they are do not all come first.
func TestNoMachineID(t *testing.T) {
	turn := newTurn(t, "")
	for _, id := range []string{"", "uninitialized\n"} {
		if err := os.WriteFile(turn.Path("/etc/machine-id"), []byte(id), 0o644); err != nil {
			t.Fatal(err)
		}
		r := &release.Release{}
		r.Rollout = &release.Rollout{Start: noon.Add(-59 * time.Minute), Duration: time.Hour}
		if v := turn.Verdict(r); v.Go || !v.Due.Equal(noon.Add(time.Minute)) {
			t.Errorf("with the machine ID %q, the turn of the host is %+v", id, v)
		}
	}
}
