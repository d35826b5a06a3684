package agent

import (
	"testing"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
)

// TestCondemned: a verdict about a root that was left does not condemn the running root.
func TestCondemned(t *testing.T) {
	a := testAgent(t)
	runs, err := facts.MountedRoot()
	if err != nil {
		t.Fatal(err)
	}
	for root, want := range map[string]bool{"sha256-left": false, runs: true} {
		if a.Transition.LeaveVerdict(root, record.Departure{Reason: "it hangs"}); a.Trial.Condemned() != want {
			t.Errorf("with a verdict about %s, %s counts as condemned: %v", root, runs, !want)
		}
	}
}
