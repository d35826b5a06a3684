package trial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestGoodThatCannotBeRecorded: a root in which the record cannot be written is not good, and the guard is told.
func TestGoodThatCannotBeRecorded(t *testing.T) {
	a := newTrial(t)
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseTrying
	testtree.File(t, a.Machine.Root, record.RecordFile+"/in-the-way", "")
	f := facts.Facts{Root: "v2"}
	err := a.good(t.Context(), f, r)
	if err == nil || !strings.Contains(err.Error(), "cannot write the record") {
		t.Fatal(err)
	}
	a.complain(t.Context(), f, r, err)
	why := a.Transition.ReadVerdict("v2").Reason
	if !strings.Contains(why, "cannot write the record") {
		t.Errorf("the guard is told %q", why)
	}
}

// TestPassingErrors: a systemd that does not answer is asked again while a root is to be judged, and nothing else is.
func TestPassingErrors(t *testing.T) {
	a := newTrial(t)
	deaf := errors.New("cannot ask systemd for its state: connection refused")
	if a.MayPass(deaf) {
		t.Error("nothing is to be judged, and it is asked again")
	}
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	if err := a.Records.Write(r); err != nil {
		t.Fatal(err)
	}
	for err, want := range map[error]bool{
		deaf: true,
		fmt.Errorf("%w: v2: no network", record.ErrUnhealthy): false,
		fmt.Errorf("%w: it fell back", transition.ErrSwitch):  false,
		record.ErrBusy:   false,
		context.Canceled: false, fmt.Errorf("cannot write the record: %w", &fs.PathError{Op: "open", Err: unix.EROFS}): false,
	} {
		if got := a.MayPass(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
		a.Transition.LeaveVerdict("", record.Departure{})
		a.complain(t.Context(), facts.Facts{Root: "v2"}, r, err)
		if told := a.Transition.ReadVerdict("v2").Reason; (told != "") != transition.IsFileError(err) {
			t.Errorf("%v: the guard is told %q", err, told)
		}
	}
}
