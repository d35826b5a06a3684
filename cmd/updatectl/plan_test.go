package main

import (
	"fmt"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestPlanned: plan answers with the exit code that apply would end with.
func TestPlanned(t *testing.T) {
	newer := agent.Available{Newer: true}
	full := &level.Decision{Level: level.Full}
	for name, c := range map[string]struct {
		plan agent.Plan
		want int
	}{
		"nothing":                {agent.Plan{}, exitDone},
		"a live patch":           {agent.Plan{Available: agent.Available{Live: true}}, exitAvailable},
		"not staged":             {agent.Plan{Available: newer}, exitAvailable},
		"full, which apply does": {agent.Plan{Available: newer, Decision: full}, exitAvailable},
		"full, asked for first": {agent.Plan{Available: newer, Decision: full, Refusal: fmt.Errorf("%w: age",
			roots.ErrFullReboot)}, exitFullReboot},
		"refused": {agent.Plan{Available: newer, Refusal: fmt.Errorf("%w: arm64", roots.ErrIncompatible)},
			exitIncompatible},
	} {
		if got := exitCode(planned(c.plan)); got != c.want {
			t.Errorf("%s: exit code %d, want %d", name, got, c.want)
		}
	}
}
