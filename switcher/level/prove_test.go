package level

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

func TestProve(t *testing.T) {
	const v1, v2 = "sha256-1", "sha256-2"
	went := Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: 3}
	full := went
	full.Level = Full
	fromHost := Expectation{From: switcher.HostRoot, Target: v2, BootID: "b", Level: Full}
	armed := &Stamp{Target: v2}
	started := went
	started.Armed = true
	first := Expectation{From: switcher.HostRoot, Target: v2, BootID: "b"}
	uncounted := started
	uncounted.SoftReboots = -1
	armedFirst := first
	armedFirst.Armed = true
	for name, c := range map[string]struct {
		expect Expectation
		facts  facts.Facts
		stamp  *Stamp
		want   Outcome
		reason string
	}{
		"arrived":                          {went, facts.Facts{Root: v2, BootID: "b", SoftReboots: 4}, armed, Switched, "mounted at /"},
		"arrived by a full boot":           {went, facts.Facts{Root: v2, BootID: "c", SoftReboots: 0}, nil, Switched, "mounted at /"},
		"not yet":                          {went, facts.Facts{Root: v1, BootID: "b", SoftReboots: 3}, nil, Pending, "not happened yet"},
		"armed and not yet":                {went, facts.Facts{Root: v1, BootID: "b", SoftReboots: 3}, armed, Pending, "not happened yet"},
		"same root again, arming failed":   {went, facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, &Stamp{Target: v2, Error: "no space"}, NotArmed, "no space"},
		"same root again, never armed":     {went, facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, nil, NotArmed, "did not run to its end"},
		"old root re-executed":             {went, facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, armed, FellBack, "did not accept"},
		"kernel booted into the old root":  {went, facts.Facts{Root: v1, BootID: "c", SoftReboots: 0}, nil, Rebooted, "kernel was booted"},
		"kernel booted into the host":      {went, facts.Facts{Root: switcher.HostRoot, BootID: "c"}, nil, Rebooted, "kernel was booted before"},
		"kernel booted after the arming":   {started, facts.Facts{Root: switcher.HostRoot, BootID: "c"}, nil, Rebooted, "sha256-2 had been started and was not up yet: its init ended"},
		"container ended by the new root":  {armedFirst, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, nil, Rebooted, "userspace ended when sha256-2 had been started"},
		"not counted, arming killed":       {uncounted, facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, nil, Pending, "not happened yet"},
		"not asked for, container":         {first, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, nil, Pending, "not happened yet"},
		"container restarted":              {went, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, nil, Rebooted, "kernel was booted"},
		"somebody else's root":             {went, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 4}, armed, Elsewhere, "neither"},
		"full, not yet":                    {full, facts.Facts{Root: v1, BootID: "b", SoftReboots: 3}, armed, Pending, "full reboot into sha256-2 has not happened yet"},
		"full, landed on the host":         {full, facts.Facts{Root: switcher.HostRoot, BootID: "c"}, nil, Landed, "has to go on"},
		"full, container started again":    {full, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, nil, Landed, "has to go on"},
		"full from the host, landed there": {fromHost, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, nil, Landed, "has to go on"},
		"full from the host, not yet":      {fromHost, facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, armed, Pending, "not happened yet"},
		"full, arrived":                    {full, facts.Facts{Root: v2, BootID: "c", SoftReboots: 1}, nil, Switched, "mounted at /"},
		"full, booted into the old root":   {full, facts.Facts{Root: v1, BootID: "c", SoftReboots: 0}, nil, Rebooted, "sha256-1 is mounted at /"},
		"full, soft-rebooted instead":      {full, facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, armed, NotArmed, "instead of booting the kernel"},
		"full, soft-rebooted elsewhere":    {full, facts.Facts{Root: "sha256-3", BootID: "b", SoftReboots: 4}, armed, Elsewhere, "neither"},
		"systemd 255 cannot count, armed":  {Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1}, facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, armed, FellBack, "did not accept"},
		"systemd 255 cannot count, failed": {Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1}, facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, &Stamp{Target: v2, Error: "x"}, NotArmed, "x"},
		"systemd 255 cannot count, early":  {Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1}, facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, nil, Pending, "not happened yet"},
	} {
		t.Run(name, func(t *testing.T) {
			got, reason := Prove(c.expect, c.facts, c.stamp)
			if got != c.want || !strings.Contains(reason, c.reason) {
				t.Errorf("Prove = %q, %q; want %q and a reason with %q", got, reason, c.want, c.reason)
			}
		})
	}
}
