package report

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestReportsThatMatter: status shows a report of the health gate only where it says something about now.
func TestReportsThatMatter(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	report := func(root string, at time.Time) *trial.Report {
		r := &trial.Report{Root: root}
		r.Report.At = at
		return r
	}
	trying := agent.Status{Phase: record.PhaseTrying, Booted: agent.RootStatus{Root: "v2"},
		Switch: &agent.SwitchStatus{Target: "v2", At: now}}
	resting := agent.Status{Phase: record.PhaseGood, Booted: agent.RootStatus{Root: "v1"},
		Last: &record.Result{Outcome: level.Unhealthy, Target: "v2"}}
	since := resting
	since.Last = &record.Result{Outcome: level.Switched, Target: "v1"}
	for name, c := range map[string]struct {
		status agent.Status
		report *trial.Report
		want   bool
	}{
		"none":                               {resting, nil, false},
		"of the root that runs":              {resting, report("v1", now), true},
		"why the host rolled back":           {resting, report("v2", now), true},
		"of an earlier root":                 {since, report("v2", now), false},
		"in a trial, of the root before":     {trying, report("v1", now.Add(-time.Hour)), false},
		"in a trial, of an earlier attempt":  {trying, report("v2", now.Add(-time.Hour)), false},
		"in a trial, of the root that is on": {trying, report("v2", now.Add(time.Second)), true},
	} {
		if got := reportMatters(c.status, c.report); got != c.want {
			t.Errorf("%s: shown %v, want %v", name, got, c.want)
		}
	}
}

// TestLastText: how the last switch ended names the root, and where the host is.
func TestLastText(t *testing.T) {
	r := record.Result{Outcome: level.Unhealthy, Reason: "port tcp:80", Target: "sha256-" + strings.Repeat("ab", 32),
		At: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), Back: "host"}
	const want = "to sha256-abababababab (2026-03-01 10:00:00): unhealthy: port tcp:80; the host rolled back to host"
	if got := lastText(r); got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}

// TestSwitchText: a switch under way is shown with where it leads and where it ends.
func TestSwitchText(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	root := "sha256-" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		s    agent.Status
		want string
	}{
		{agent.Status{Phase: record.PhaseGood}, ""},
		{agent.Status{Phase: record.PhaseArmed, Switch: &agent.SwitchStatus{Verb: "apply", Target: root, Version: "2",
			At: at, Back: "host"}},
			"Switching  to sha256-abababababab, version 2 since 10:00:00 (apply)\n"},
		{agent.Status{Phase: record.PhaseTrying, Switch: &agent.SwitchStatus{Verb: "apply", Target: root, Version: "2",
			At: at, Back: "host", Deadline: at.Add(time.Minute)}},
			"Trying  sha256-abababababab, version 2 (apply); if it is not good by 10:01:00,\n" +
				"        the host rolls back to host\n        its health is not judged yet\n"},
		{agent.Status{Phase: record.PhaseTrying, Switch: &agent.SwitchStatus{Verb: "back", Target: "host", At: at,
			Deadline: at.Add(time.Minute)}},
			"Trying  host (rolling back); if it is not good by 10:01:00, the host stays\n" +
				"        its health is not judged yet\n"},
	} {
		if got := page(t, func(w io.Writer) { switchText(w, c.s) }); got != c.want {
			t.Errorf("%+v is shown as %q, want %q", c.s.Switch, got, c.want)
		}
	}
}

// TestRootsText: each root is listed in one state.
func TestRootsText(t *testing.T) {
	id := func(digit string) string { return "sha256-" + strings.Repeat(digit, 64) }
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	got := page(t, func(w io.Writer) {
		rootsText(w, agent.Status{
			Good: []agent.RootStatus{{Root: id("1"), Version: "1"}, {Root: id("2"), Version: "2"}, {Root: "host"}},
			Bad: map[string]record.Bad{
				id("1"): {Reason: "left by the operator", At: at, RolledBack: true},
				id("3"): {Reason: "unhealthy", At: at},
			},
			Removed:    []string{id("3")},
			NotReached: map[string]record.Failed{id("3"): {Times: 2, Reason: "stuck"}, id("4"): {Times: 1, Reason: "stuck"}},
		})
	})
	const want = `Good         sha256-222222222222, version 2
             host
Left         sha256-111111111111, 2026-03-01 10:00: left by the operator
Bad          sha256-333333333333, 2026-03-01 10:00: unhealthy (removed)
Not reached  sha256-444444444444, once: stuck
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestVolatileShown: whoever looks sees that a root runs on a copy, and how to leave it.
func TestVolatileShown(t *testing.T) {
	s := agent.Status{Phase: record.PhaseGood, Booted: agent.RootStatus{Root: "v2"},
		Good: []agent.RootStatus{{Root: "v1"}}}
	for want, volatile := range map[string][2]bool{
		"":                                 {false, false},
		"; its health is not judged yet; ": {true, false},
		"; it was found healthy; ":         {true, true},
	} {
		s.Volatile, s.Healthy = volatile[0], volatile[1]
		var out strings.Builder
		Status(&out, s)
		shown := strings.Contains(out.String(), "volatile: it runs on a throw-away copy of the state"+want)
		if shown != s.Volatile || strings.Contains(out.String(), "`updatectl rollback` drops it") != s.Volatile {
			t.Errorf("volatile %v: %s", volatile, out.String())
		}
	}
	var out strings.Builder
	History(&out, []record.Event{
		{Event: record.EventSwitching, Verb: "apply", From: "v1", Root: "v2", Volatile: true},
	})
	if !strings.Contains(out.String(), "apply, volatile, from v1") {
		t.Errorf("history is %q", out.String())
	}
	out.Reset()
	Confirmed(&out, trial.Confirmed{Root: "v2", Volatile: true, Healthy: true})
	if !strings.Contains(out.String(), "v2 is healthy. It is volatile") {
		t.Errorf("confirm says %q", out.String())
	}
	out.Reset()
	Applied(&out, agent.Applied{Switching: true, Root: "v1", From: "v2", Drops: true})
	text := out.String()
	if !strings.Contains(text, "what was changed in v2 goes with it") || strings.Contains(text, "/etc") {
		t.Errorf("rollback says %q", text)
	}
}
