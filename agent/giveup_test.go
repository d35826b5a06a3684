package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestNeverRan: what ends a switch before the new root runs is not that root's fault, and is counted all the same.
func TestNeverRan(t *testing.T) {
	for name, outcome := range map[string]level.Outcome{"not armed": level.NotArmed, "booted before it was armed": level.Rebooted} {
		t.Run(name, func(t *testing.T) {
			r := onTheWay(verbApply, "v1", "v2", "host", "v1")
			for times := 1; times <= maxAttempts+1; times++ {
				r.Phase, r.Attempts["v2"] = PhaseArmed, maxAttempts
				if err := r.giveUp(CauseMissed, outcome, "no space", time.Now()); err != nil {
					t.Fatal(err)
				}
				if want := (Failed{times, "no space"}); r.Failed["v2"] != want || len(r.Bad) != 0 {
					t.Errorf("failed %+v, bad %+v; want %+v", r.Failed, r.Bad, want)
				}
			}
		})
	}
}

// TestGivenUpIsTold: the first time a root is lost, it may have been a power cut; the second time the history says that
// the root is given up.
func TestGivenUpIsTold(t *testing.T) {
	a := testAgent(t)
	for attempt, want := range [][]string{{"failed"}, {"failed", "failed", "bad"}} {
		r := onTheWay(verbApply, "v1", "v2", "host", "v1")
		r.Phase, r.Attempts["v2"], r.Switch.Armed = PhaseArmed, attempt+1, true
		if err := a.giveUp(r, CauseMissed, level.Rebooted, "the kernel was booted"); !errors.Is(err, ErrSwitch) {
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

// TestGoodThatCannotBeRecorded: a root in which the record cannot be written is not good, and the guard is told.
func TestGoodThatCannotBeRecorded(t *testing.T) {
	a := testAgent(t)
	r := onTheWay(verbApply, "v1", "v2", "host", "v1")
	r.Phase = PhaseTrying
	writeFile(t, a.Machine.Root, recordFile+"/in-the-way", "")
	writeFile(t, a.Machine.Root, switcher.RunDir+"/.keep", "")
	f := facts.Facts{Root: "v2"}
	err := a.good(t.Context(), f, r)
	if err == nil || !strings.Contains(err.Error(), "cannot write the record") {
		t.Fatal(err)
	}
	a.complain(t.Context(), f, r, err)
	if why := readVerdict(a.path(verdictFile), "v2"); !strings.Contains(why, "cannot write the record") {
		t.Errorf("the guard is told %q", why)
	}
}

// TestPassingErrors: a systemd that does not answer is asked again while a root is to be judged, and nothing else is.
func TestPassingErrors(t *testing.T) {
	a := testAgent(t)
	writeFile(t, a.Machine.Root, switcher.RunDir+"/.keep", "")
	deaf := errors.New("cannot ask systemd for its state: connection refused")
	if a.passing(deaf) {
		t.Error("nothing is to be judged, and it is asked again")
	}
	r := onTheWay(verbApply, "v1", "v2", "host", "v1")
	if err := a.writeRecord(r); err != nil {
		t.Fatal(err)
	}
	for err, want := range map[error]bool{
		deaf: true,
		fmt.Errorf("%w: v2: no network", ErrUnhealthy): false, fmt.Errorf("%w: it fell back", ErrSwitch): false, ErrBusy: false,
		context.Canceled: false, fmt.Errorf("cannot write the record: %w", &fs.PathError{Op: "open", Err: unix.EROFS}): false,
	} {
		if got := a.passing(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
		a.leaveVerdict("", "")
		a.complain(t.Context(), facts.Facts{Root: "v2"}, r, err)
		if told := readVerdict(a.path(verdictFile), "v2"); (told != "") != ofFiles(err) {
			t.Errorf("%v: the guard is told %q", err, told)
		}
	}
}
