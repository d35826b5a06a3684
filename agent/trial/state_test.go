package trial

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/level"
)

// displacedMounts are mounts of which some lie elsewhere than before, the first times that somebody asks.
type displacedMounts struct {
	machine.Mounts
	asked *int
	times int
}

func (d displacedMounts) Displaced(dirs []kept.Dir, _ string) []string {
	var reasons []string
	if *d.asked++; *d.asked <= d.times {
		for _, dir := range dirs {
			reasons = append(reasons, dir.Path+" is the image's own")
		}
	}
	return reasons
}

// TestStateInPlace: a root without the state of the host is unhealthy, and nothing else is asked. What the root mounts
// late is waited for. After another full reboot, nothing is compared.
func TestStateInPlace(t *testing.T) {
	for name, c := range map[string]struct {
		times  int
		boot   string
		failed bool
	}{
		"in place":            {0, "b1", false},
		"mounted late":        {1, "b1", false},
		"gone":                {1000, "b1", true},
		"after a full reboot": {1000, "b2", false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTrial(t)
			asked := 0
			a.Machine.Mounts = displacedMounts{a.Machine.Mounts, &asked, c.times}
			a.Config.Health.Deadline, a.Config.Health.Settle = config.Duration(time.Second), 0
			rec := &record.Record{Switch: &record.Switch{
				Expectation: level.Expectation{BootID: "b1"}, Kept: []kept.Dir{{Path: "/home"}, {Path: "/srv"}},
			}}
			r := a.stateInPlace(t.Context(), facts.Facts{BootID: c.boot}, rec)
			named := strings.Contains(r.Reason, "/home is the image's own; /srv")
			if (r.Verdict == health.Fail) != c.failed || named != c.failed {
				t.Errorf("the result is %+v", r)
			}
		})
	}
}

// TestDisplacedRootIsUnhealthy: the check of the state comes first, and decides alone when it fails.
func TestDisplacedRootIsUnhealthy(t *testing.T) {
	a := newTrial(t)
	a.Config.Health.Deadline, a.Config.Health.Settle = config.Duration(time.Second), 0
	asked := 0
	a.Machine.Mounts = displacedMounts{a.Machine.Mounts, &asked, 1000}
	rec := &record.Record{Switch: &record.Switch{
		Expectation: level.Expectation{BootID: "b1"}, Kept: []kept.Dir{{Path: "/home"}},
	}}
	report, err := a.judge(t.Context(), facts.Facts{BootID: "b1", Root: "sha256-1"}, rec)
	if err != nil || report.Healthy() || len(report.Results) != 1 || report.CutOff() {
		t.Errorf("the report is %+v, %v", report, err)
	}
	if !slices.ContainsFunc(report.Results, func(r health.Result) bool { return r.Kind == kindState }) {
		t.Error("no result is about the state")
	}
}
