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
		"arrived": {
			expect: went, facts: facts.Facts{Root: v2, BootID: "b", SoftReboots: 4}, stamp: armed, want: Switched,
			reason: "mounted at /",
		},
		"arrived by a full boot": {
			expect: went, facts: facts.Facts{Root: v2, BootID: "c", SoftReboots: 0}, want: Switched,
			reason: "mounted at /",
		},
		"not yet": {
			expect: went, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 3}, want: Pending,
			reason: "not happened yet",
		},
		"armed and not yet": {
			expect: went, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 3}, stamp: armed, want: Pending,
			reason: "not happened yet",
		},
		"same root again, arming failed": {
			expect: went, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 4},
			stamp: &Stamp{Target: v2, Error: "no space"}, want: NotArmed, reason: "no space",
		},
		"same root again, never armed": {
			expect: went, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, want: NotArmed,
			reason: "did not run to its end",
		},
		"old root re-executed": {
			expect: went, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, stamp: armed, want: FellBack,
			reason: "did not accept",
		},
		"kernel booted into the old root": {
			expect: went, facts: facts.Facts{Root: v1, BootID: "c", SoftReboots: 0}, want: Rebooted,
			reason: "a full reboot came before the switch",
		},
		"kernel booted into the host": {
			expect: went, facts: facts.Facts{Root: switcher.HostRoot, BootID: "c"}, want: Rebooted,
			reason: "a full reboot came before the switch",
		},
		"kernel booted after the arming": {
			expect: started, facts: facts.Facts{Root: switcher.HostRoot, BootID: "c"}, want: Rebooted,
			reason: "sha256-2 had been started, and a full reboot came before it was up: its init ended",
		},
		"container ended by the new root": {
			expect: armedFirst, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0},
			want: Rebooted, reason: "sha256-2 had been started, and userspace ended",
		},
		"not counted, arming killed": {
			expect: uncounted, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, want: Pending,
			reason: "not happened yet",
		},
		"not asked for, container": {
			expect: first, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0},
			want: Pending, reason: "not happened yet",
		},
		"container restarted": {
			expect: went, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0},
			want: Rebooted, reason: "a full reboot came before the switch",
		},
		"somebody else's root": {
			expect: went, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 4}, stamp: armed,
			want: Elsewhere, reason: "neither",
		},
		"full, not yet": {
			expect: full, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 3}, stamp: armed, want: Pending,
			reason: "full reboot into sha256-2 has not happened yet",
		},
		"full, landed on the host": {
			expect: full, facts: facts.Facts{Root: switcher.HostRoot, BootID: "c"}, want: Landed,
			reason: "must still switch to it",
		},
		"full, container started again": {
			expect: full, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0}, want: Landed,
			reason: "must still switch to it",
		},
		"full from the host, landed there": {
			expect: fromHost, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0},
			want: Landed, reason: "must still switch to it",
		},
		"full from the host, not yet": {
			expect: fromHost, facts: facts.Facts{Root: switcher.HostRoot, BootID: "b", SoftReboots: 0},
			stamp: armed, want: Pending, reason: "not happened yet",
		},
		"full, arrived": {
			expect: full, facts: facts.Facts{Root: v2, BootID: "c", SoftReboots: 1}, want: Switched,
			reason: "mounted at /",
		},
		"full, booted into the old root": {
			expect: full, facts: facts.Facts{Root: v1, BootID: "c", SoftReboots: 0}, want: Rebooted,
			reason: "sha256-1 is mounted at /",
		},
		"full, soft-rebooted instead": {
			expect: full, facts: facts.Facts{Root: v1, BootID: "b", SoftReboots: 4}, stamp: armed, want: NotArmed,
			reason: "instead of the full reboot",
		},
		"full, soft-rebooted elsewhere": {
			expect: full, facts: facts.Facts{Root: "sha256-3", BootID: "b", SoftReboots: 4}, stamp: armed,
			want: Elsewhere, reason: "neither",
		},
		"systemd 255 cannot count, full, not yet": { // the stamp was written as the reboot was requested
			expect: Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1, Level: Full},
			facts:  facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, stamp: armed, want: Pending,
			reason: "full reboot into sha256-2 has not happened yet",
		},
		"systemd 255 cannot count, full, landed": {
			expect: Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1, Level: Full},
			facts:  facts.Facts{Root: switcher.HostRoot, BootID: "c", SoftReboots: -1}, want: Landed,
			reason: "must still switch to it",
		},
		"systemd 255 cannot count, full into itself, not yet": {
			expect: Expectation{From: v1, Target: v1, BootID: "b", SoftReboots: -1, Level: Full},
			facts:  facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, stamp: &Stamp{Target: v1}, want: Pending,
			reason: "full reboot into sha256-1 has not happened yet",
		},
		"systemd 255 cannot count, armed": {
			expect: Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1},
			facts:  facts.Facts{Root: v1, BootID: "b", SoftReboots: -1},
			stamp:  armed,
			want:   FellBack,
			reason: "did not accept",
		},
		"systemd 255 cannot count, failed": {
			expect: Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1},
			facts:  facts.Facts{Root: v1, BootID: "b", SoftReboots: -1},
			stamp:  &Stamp{Target: v2, Error: "x"},
			want:   NotArmed,
			reason: "x",
		},
		"systemd 255 cannot count, early": {
			expect: Expectation{From: v1, Target: v2, BootID: "b", SoftReboots: -1},
			facts:  facts.Facts{Root: v1, BootID: "b", SoftReboots: -1}, want: Pending, reason: "not happened yet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, reason := Prove(c.expect, c.facts, c.stamp)
			if got != c.want || !strings.Contains(reason, c.reason) {
				t.Errorf("Prove = %q, %q; want %q and a reason with %q", got, reason, c.want, c.reason)
			}
		})
	}
}

// TestProveIntoItself: a switch into the root that runs shows in the count and the stamp alone.
func TestProveIntoItself(t *testing.T) {
	const v1 = "sha256-1"
	e := Expectation{From: v1, Target: v1, BootID: "b", SoftReboots: 3}
	for name, c := range map[string]struct {
		count int
		stamp *Stamp
		want  Outcome
	}{
		"arrived":                              {4, &Stamp{Target: v1}, Switched},
		"not yet":                              {3, nil, Pending},
		"armed and not yet":                    {3, &Stamp{Target: v1}, Pending},
		"not armed":                            {4, &Stamp{Target: v1, Error: "no space"}, NotArmed},
		"never armed":                          {4, nil, NotArmed},
		"systemd does not count, no stamp":     {-1, nil, Pending},
		"systemd does not count, with a stamp": {-1, &Stamp{Target: v1}, Switched},
	} {
		if got, reason := Prove(e, facts.Facts{Root: v1, BootID: "b", SoftReboots: c.count}, c.stamp); got != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got, reason, c.want)
		}
	}
}
