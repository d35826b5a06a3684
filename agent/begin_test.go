package agent

import (
	"errors"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
)

// TestAnotherTree: the switch of a host that does not run is left to that host. It was judged by the machine that looks
// at its tree, and its good roots were forgotten.
func TestAnotherTree(t *testing.T) {
	for _, phase := range []record.Phase{record.PhaseArmed, record.PhaseTrying} {
		a := testAgent(t)
		rec := hosttest.OnTheWay(record.VerbApply, "v1", "v2", switcher.HostRoot, "v1")
		rec.Phase = phase
		if err := a.Records.Write(rec); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Stage(t.Context(), ApplyOptions{}); !errors.Is(err, record.ErrBlocked) {
			t.Errorf("%s: stage ends with %v, want that it is blocked", phase, err)
		}
		now, err := a.Records.Read()
		if err != nil || now.Phase != phase || !slices.Equal(now.Good, rec.Good) {
			t.Errorf("%s: the record is %+v (%v), was %+v", phase, now, err, rec)
		}
	}
}

// TestLivePatchInTrial: nothing is fetched while a root is tried. Its time would run out while confirm waits for the
// lock.
func TestLivePatchInTrial(t *testing.T) {
	a := testAgent(t)
	rec := hosttest.OnTheWay(record.VerbApply, "v1", "v2", switcher.HostRoot, "v1")
	s := &session{Agent: a, facts: hosttest.Kernel, rec: rec}
	if _, err := s.livePatchApply(t.Context(), LivePatchOptions{}); !errors.Is(err, record.ErrBlocked) {
		t.Errorf("livepatch apply ends with %v, want that it is blocked", err)
	}
	if _, err := s.livePatchApply(t.Context(), LivePatchOptions{Stored: true}); errors.Is(err, record.ErrBlocked) {
		t.Errorf("the live patches that are here wait, too: %v", err)
	}
}

// TestPinDuringSwitch: the arming step and the guard write the record without the lock, so pin does not then.
func TestPinDuringSwitch(t *testing.T) {
	a := testAgent(t)
	if err := a.Records.Write(hosttest.OnTheWay(record.VerbApply, "v1", "v2", switcher.HostRoot, "v1")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Pin(t.Context(), "v1", true); !errors.Is(err, record.ErrBlocked) {
		t.Errorf("pin ends with %v, want that it is blocked", err)
	}
}
