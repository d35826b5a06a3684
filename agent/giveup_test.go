package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher"
)

// TestGivenUpIsTold: the first time a root is lost, it may have been a power cut; the second time the history says that
// the root is given up.
func TestGivenUpIsTold(t *testing.T) {
	a := testAgent(t)
	for attempt, want := range [][]string{{"failed"}, {"failed", "failed", "bad"}} {
		r := onTheWay(verbApply, "v1", "v2", "host", "v1")
		r.Phase, r.Attempts["v2"] = PhaseArmed, attempt+1
		if err := a.giveUp(r, CauseMissed, switcher.Rebooted, "the kernel was booted"); !errors.Is(err, ErrSwitch) {
			t.Fatal(err)
		}
		events, err := a.History()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.Event)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("after attempt %d the history is %q, want %q", attempt+1, got, want)
		}
		if last := events[len(events)-1]; last.Event == "bad" && !strings.Contains(last.Reason, "tried 2 times") {
			t.Errorf("it is given up because %q", last.Reason)
		}
	}
}
