package trial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/configs"
)

// TestHealthReportIsBounded: a large report loses the output of checks, never a verdict.
func TestHealthReportIsBounded(t *testing.T) {
	a := newTrial(t)
	if err := os.MkdirAll(a.Path(record.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := a.LastReport(); r != nil {
		t.Errorf("a report before the first switch: %+v", r)
	}
	want := Report{Root: "sha256-1", Report: health.Report{At: time.Unix(1, 0).UTC(), Results: []health.Result{
		{
			Name:    "required.d/10-app",
			Kind:    health.KindCheck,
			Verdict: health.Fail,
			Reason:  "exit code 1",
			Output:  "no\nway",
			Took:    time.Second,
		},
	}}}
	if err := a.keepReport(want); err != nil {
		t.Fatal(err)
	}
	if got := a.LastReport(); got == nil || fmt.Sprint(*got) != fmt.Sprint(want) {
		t.Errorf("kept %+v, want %+v", got, want)
	}
	for i := range 1000 {
		want.Report.Results = append(want.Report.Results,
			health.Result{Name: fmt.Sprint(i), Verdict: health.Fail, Output: strings.Repeat("x", 4096)})
	}
	if err := a.keepReport(want); err != nil {
		t.Fatal(err)
	}
	got := a.LastReport()
	if got == nil || len(got.Report.Results) != 1001 || got.Report.Reason() != want.Report.Reason() ||
		got.Report.Results[1000].Output != "" {
		t.Errorf("a large report lost more than its output")
	}
	if want.Report.Results[1000].Output == "" {
		t.Error("storing the report changed it")
	}
	if err := os.Truncate(a.Path(healthFile), maxReport+2); err != nil {
		t.Fatal(err)
	}
	if _, err := a.parseReport(a.Path(healthFile)); err == nil || errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a report that is too large: %v", err)
	}
}

// TestUnhealthyReport: the report about a bad root is still there when the root that the host rolled back to was
// judged.
func TestUnhealthyReport(t *testing.T) {
	a := newTrial(t)
	if err := os.MkdirAll(a.Path(record.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	failed := health.Report{At: time.Unix(1, 0).UTC(), Results: []health.Result{{Name: "x", Verdict: health.Fail}}}
	unhealthy := Report{Root: "sha256-2", Report: failed}
	healthy := Report{Root: "sha256-1", Healthy: true, Report: health.Report{At: time.Unix(2, 0).UTC()}}
	rec := &record.Record{Bad: map[string]record.Bad{"sha256-2": {}}}
	if a.LastUnhealthy(rec) != nil {
		t.Error("a report before the first switch")
	}
	if err := a.keepReport(unhealthy); err != nil {
		t.Fatal(err)
	}
	if a.LastUnhealthy(rec) != nil || a.LastReport().Root != unhealthy.Root {
		t.Error("the same report is returned twice")
	}
	if err := a.keepReport(healthy); err != nil {
		t.Fatal(err)
	}
	if got := a.LastUnhealthy(rec); got == nil || got.Root != unhealthy.Root || a.LastReport().Root != healthy.Root {
		t.Errorf("the unhealthy root's report is %+v", got)
	}
	if a.LastUnhealthy(&record.Record{}) != nil {
		t.Error("the report of a root that is no longer bad")
	}
}

// TestGateAsksTheRegistry: the gate checks every source of images once, and none on a disk.
func TestGateAsksTheRegistry(t *testing.T) {
	a := newTrial(t)
	a.Config = config.Default()
	a.Config.Source.Image = "registry.example.org/os:stable"
	a.Config.Source.Mirrors = []string{
		"oci:/mnt/usb:stable", "registry.example.org/mirror:stable", "mirror.example.org:5000/os:stable",
	}
	want := []string{"registry.example.org:443", "mirror.example.org:5000"}
	if got := a.Gate().Sources; !slices.Equal(got, want) {
		t.Errorf("sources are %q, want %q", got, want)
	}
}

// TestGateTolerates: what a soft reboot breaks by design does not count, nor does what the operator names.
func TestGateTolerates(t *testing.T) {
	a := newTrial(t)
	a.Config.Health.Ignore = []string{"fwupd.service"}
	for _, pattern := range []string{"fwupd.service", "systemd-zram-setup@*.service"} {
		if got := a.Gate().Config.Ignore; !slices.Contains(got, pattern) {
			t.Errorf("%s counts: ignored are %q", pattern, got)
		}
	}
	if len(a.Config.Health.Ignore) != 1 {
		t.Errorf("the configuration says %q now", a.Config.Health.Ignore)
	}
}

// TestGateLeavesOutOwnUnits: no service or socket of the agent says anything about the root, not even if it took too
// long.
func TestGateLeavesOutOwnUnits(t *testing.T) {
	own := newTrial(t).Gate().Own
	for unit := range configs.Units() {
		isOwn := strings.HasPrefix(unit, "updatectl") &&
			(strings.HasSuffix(unit, ".service") || strings.HasSuffix(unit, ".socket"))
		if slices.Contains(own, unit) != isOwn {
			t.Errorf("%s counts as the agent's own: %v, want %v", unit, !isOwn, isOwn)
		}
	}
}
