package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
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

// TestSlowText: the unit that is slow is not lost among those with the default timeout.
func TestSlowText(t *testing.T) {
	var out bytes.Buffer
	slowText(&out, []pid1.Blocker{{Unit: "a.service", Reason: "long", Default: true},
		{Unit: "db.service", Reason: "longer"}, {Unit: "b.service", Reason: "long", Default: true}})
	want := "Slow\tdb.service: longer\n" +
		"Slow\t2 units only by systemd's default stop timeout, which is longer than [switch] shutdown-deadline\n"
	if out.String() != want {
		t.Errorf("it is %q, want %q", out.String(), want)
	}
}

// TestRetryKeepsFlags: the hint for an image that was given up asks for the same image.
func TestRetryKeepsFlags(t *testing.T) {
	err := adviseRetry(record.Bad{Reason: "x"}.Err(), agent.ApplyOptions{From: "oci:a:b", AllowDowngrade: true})
	if got := hint(err); got != "`updatectl apply --retry --from oci:a:b --allow-downgrade` takes it anyway" ||
		exitCode(err) != exitBlocked {
		t.Errorf("exit code %d, hint %q", exitCode(err), got)
	}
	if strings.Contains(err.Error(), "for now") {
		t.Errorf("%q does not pass", err)
	}
	if other := errors.New("other"); adviseRetry(other, agent.ApplyOptions{}) != other {
		t.Error("another error is changed")
	}
}

// TestRollbackText: a rollback says where the changes of the root that is left are.
func TestRollbackText(t *testing.T) {
	var out bytes.Buffer
	c := &cli{stdout: &out, output: "text"}
	root := "sha256-" + strings.Repeat("ab", 32)
	err := c.print("rollback", nil, func(w io.Writer) {
		appliedText(w, agent.Applied{Switching: true, Root: "host", From: root,
			LeftInEtc: []string{"a", "b", "c", "d", "e", "f"}})
	})
	if want := "6 files that changed here: a, b, c, d, e …"; !strings.Contains(out.String(), want) {
		t.Errorf("%q is not in %q", want, out.String())
	}
	if want := "/var/lib/updatectl/roots/sha256-abababababab*/etc"; err != nil || !strings.Contains(out.String(), want) {
		t.Errorf("%v: %q is not in %q", err, want, out.String())
	}
}
