package trial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/health"
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
	err := a.markGood(t.Context(), f, r, health.Report{})
	if err == nil || !strings.Contains(err.Error(), "cannot write the record") {
		t.Fatal(err)
	}
	a.leaveToGuard(t.Context(), f, r, err)
	why := a.Transition.ReadVerdict("v2").Reason
	if !strings.Contains(why, "cannot write the record") {
		t.Errorf("the verdict for the guard is %q", why)
	}
}

// TestArrived: a root that became good is another event after a roll back and after a full reboot.
func TestArrived(t *testing.T) {
	for verb, want := range map[string]event.Event{
		record.VerbApply: event.Good, record.VerbResume: event.Resumed, record.VerbBack: event.RolledBack,
		record.VerbRollback: event.RolledBack,
	} {
		a := newTrial(t)
		log, seen := observer.New(zap.InfoLevel)
		a.Log = zap.New(log)
		r := hosttest.OnTheWay(verb, "v1", "v2", "host", "v1")
		r.Phase = record.PhaseTrying
		if err := a.markGood(t.Context(), facts.Facts{Root: "v2"}, r, health.Report{}); err != nil {
			t.Fatal(verb, err)
		}
		var got []event.Event
		for _, e := range seen.All() {
			if is, found := event.Of(e.ContextMap()); found {
				got = append(got, is)
			}
		}
		if !slices.Equal(got, []event.Event{want}) {
			t.Errorf("after %s, the events are %v, want %v", verb, got, want)
		}
	}
}

// TestTransientErrors: only when systemd does not answer while a root is being tried, confirm tries again.
func TestTransientErrors(t *testing.T) {
	deaf := errors.New("cannot ask systemd for its state: connection refused")
	if newTrial(t).IsTransient(deaf) {
		t.Error("confirm tries again although no root is being tried")
	}
	for _, c := range []struct {
		err     error
		want    bool
		verdict bool // for the guard
	}{
		{err: deaf, want: true},
		{err: fmt.Errorf("%w: v2: no network", record.ErrUnhealthy)},
		{err: fmt.Errorf("%w: it fell back", transition.ErrSwitch)},
		{err: record.ErrBusy},
		{err: context.Canceled},
		{err: fmt.Errorf("cannot write the record: %w", &fs.PathError{Op: "open", Err: unix.EROFS}), verdict: true},
	} {
		a := newTrial(t)
		r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
		if err := a.Records.Write(r); err != nil {
			t.Fatal(err)
		}
		if got := a.IsTransient(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
		a.leaveToGuard(t.Context(), facts.Facts{Root: "v2"}, r, c.err)
		if why := a.Transition.ReadVerdict("v2").Reason; (why != "") != c.verdict {
			t.Errorf("%v: the verdict for the guard is %q", c.err, why)
		}
	}
}
