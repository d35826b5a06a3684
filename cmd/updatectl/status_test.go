package main

import (
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

func TestLastEnded(t *testing.T) {
	if code := lastEnded(agent.Status{}); code != exitDone {
		t.Errorf("without a switch, the code is %d", code)
	}
	for outcome, want := range map[level.Outcome]int{
		level.Switched: exitDone, level.Unhealthy: exitUnhealthy, level.RolledBack: exitUnhealthy,
		level.NotArmed: exitError, level.Rebooted: exitError, level.Stuck: exitError, level.OldKernel: exitError,
	} {
		if code := lastEnded(agent.Status{Last: &record.Result{Outcome: outcome}}); code != want {
			t.Errorf("after %q, the code is %d, want %d", outcome, code, want)
		}
	}
}
