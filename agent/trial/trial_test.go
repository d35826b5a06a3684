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

// TestGoodThatCannotBeRecorded: a root in which the record cannot be written is not good, and the guard gets a
// verdict.
func TestGoodThatCannotBeRecorded(t *testing.T) {
	a := newTrial(t)
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseTrying
	testtree.File(t, a.Machine.Root, record.RecordFile+"/in-the-way", "")
	f := facts.Facts{Root: "v2"}
	err := a.markGood(t.Context(), f, r)
	if err == nil || !strings.Contains(err.Error(), "cannot write the record") {
		t.Fatal(err)
	}
	a.leaveToGuard(t.Context(), f, r, err)
	why := a.Transition.ReadVerdict("v2").Reason
	if !strings.Contains(why, "cannot write the record") {
		t.Errorf("the verdict for the guard is %q", why)
	}
}

// TestTransientErrors: only when systemd does not answer while a root is being tried, confirm tries again.
func TestTransientErrors(t *testing.T) {
	a := newTrial(t)
	deaf := errors.New("cannot ask systemd for its state: connection refused")
	if a.IsTransient(deaf) {
		t.Error("confirm tries again although no root is being tried")
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
		context.Canceled: false,
		fmt.Errorf("cannot write the record: %w", &fs.PathError{Op: "open", Err: unix.EROFS}): false,
	} {
		if got := a.IsTransient(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
		a.Transition.LeaveVerdict("", record.Departure{})
		a.leaveToGuard(t.Context(), facts.Facts{Root: "v2"}, r, err)
		if why := a.Transition.ReadVerdict("v2").Reason; (why != "") != transition.IsFileError(err) {
			t.Errorf("%v: the verdict for the guard is %q", err, why)
		}
	}
}
