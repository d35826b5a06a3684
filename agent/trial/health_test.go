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
)

// TestHealthReportIsBounded: what check programs wrote can be lost, what they found cannot.
func TestHealthReportIsBounded(t *testing.T) {
	a := newTrial(t)
	if err := os.MkdirAll(a.Path(record.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := a.Last(); r != nil {
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
	if got := a.Last(); got == nil || fmt.Sprint(*got) != fmt.Sprint(want) {
		t.Errorf("kept %+v, want %+v", got, want)
	}
	for i := range 1000 {
		want.Report.Results = append(want.Report.Results,
			health.Result{Name: fmt.Sprint(i), Verdict: health.Fail, Output: strings.Repeat("x", 4096)})
	}
	if err := a.keepReport(want); err != nil {
		t.Fatal(err)
	}
	got := a.Last()
	if got == nil || len(got.Report.Results) != 1001 || got.Report.Reason() != want.Report.Reason() ||
		got.Report.Results[1000].Output != "" {
		t.Errorf("a large report lost more than its output")
	}
	if want.Report.Results[1000].Output == "" {
		t.Error("writing the report down changed it")
	}
	if err := os.Truncate(a.Path(healthFile), maxReport+2); err != nil {
		t.Fatal(err)
	}
	if _, err := a.readReport(a.Path(healthFile)); err == nil || errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a report that is too large: %v", err)
	}
}

// TestSickReport: why a root was given up is still to be read when the one gone back to was judged.
func TestSickReport(t *testing.T) {
	a := newTrial(t)
	if err := os.MkdirAll(a.Path(record.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	failed := health.Report{At: time.Unix(1, 0).UTC(), Results: []health.Result{{Name: "x", Verdict: health.Fail}}}
	sick := Report{Root: "sha256-2", Report: failed}
	well := Report{Root: "sha256-1", Healthy: true, Report: health.Report{At: time.Unix(2, 0).UTC()}}
	rec := &record.Record{Bad: map[string]record.Bad{"sha256-2": {}}}
	if a.LastUnhealthy(rec) != nil {
		t.Error("a report before the first switch")
	}
	if err := a.keepReport(sick); err != nil {
		t.Fatal(err)
	}
	if a.LastUnhealthy(rec) != nil || a.Last().Root != sick.Root {
		t.Error("the same report twice")
	}
	if err := a.keepReport(well); err != nil {
		t.Fatal(err)
	}
	if got := a.LastUnhealthy(rec); got == nil || got.Root != sick.Root || a.Last().Root != well.Root {
		t.Errorf("the unhealthy root's report is %+v", got)
	}
	if a.LastUnhealthy(&record.Record{}) != nil {
		t.Error("the report of a root that is no longer bad")
	}
}

// TestGateAsksTheRegistry: every place that images come from, once, and none on a disk.
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
