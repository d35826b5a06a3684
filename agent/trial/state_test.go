package trial

import (
	"context"
	"errors"
	"net/netip"
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

// none is what a PID 1 lists that has nothing.
func none[T any](context.Context) ([]T, error) { return nil, nil }

// TestDisplacedRootIsUnhealthy: the check of the state comes first. When it fails, it decides alone about a root that
// is rolled back. Where the host may stay in it, the network is checked, too: only a host that is cut off leaves it.
func TestDisplacedRootIsUnhealthy(t *testing.T) {
	for verb, c := range map[string]struct {
		good   []string
		cutOff bool
	}{
		record.VerbApply:    {good: []string{"host"}},
		record.VerbRollback: {good: []string{"host", "sha256-1"}, cutOff: true},
		record.VerbBack:     {good: []string{"host", "sha256-1"}, cutOff: true},
		record.VerbResume:   {good: []string{"host", "sha256-1"}},
	} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			a := newTrial(t)
			a.Config.Health.Deadline, a.Config.Health.Settle = config.Duration(time.Second), 0
			asked := 0
			a.Machine.Mounts = displacedMounts{a.Machine.Mounts, &asked, 1000}
			a.Machine.Gate = func(c health.Config) health.Gate {
				g := health.New(c)
				g.Systemd.Starting, g.Systemd.Units = none, none
				g.Systemd.Restarts = func(context.Context, []string) (map[string]int, error) { return nil, nil }
				g.Systemd.Start = func(context.Context, string) (string, error) { return "done", nil }
				g.AskGateway = func(context.Context, netip.Addr) error { return errors.New("no answer") }
				return g
			}
			rec := &record.Record{Good: c.good, Switch: &record.Switch{
				Verb:        verb,
				Expectation: level.Expectation{BootID: "b1", From: "host", Target: "sha256-1"},
				Kept:        []kept.Dir{{Path: "/home"}},
				Before:      health.Before{Reachable: []string{"gateway 192.0.2.1"}},
			}}
			report, err := a.judge(t.Context(), facts.Facts{BootID: "b1", Root: "sha256-1"}, rec)
			if err != nil || report.Healthy() || report.Results[0].Kind != kindState || report.CutOff() != c.cutOff {
				t.Errorf("the report is %+v, %v", report, err)
			}
			if alone := len(report.Results) == 1; alone == c.cutOff {
				t.Errorf("the state decides alone: %v", alone)
			}
		})
	}
}
