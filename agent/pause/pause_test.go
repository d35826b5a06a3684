package pause_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
)

// newHost returns a host in an empty directory, and its clock.
func newHost(t *testing.T) (*host.Host, *time.Time) {
	t.Helper()
	m := machine.Host(t.TempDir(), record.StateDir)
	if err := os.MkdirAll(m.Path(record.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	m.Now = func() time.Time { return now }
	return host.On(m, zap.NewNop()), &now
}

func TestPause(t *testing.T) {
	h, now := newHost(t)
	if p := pause.Current(h); p != nil {
		t.Fatalf("a new host is paused: %+v", p)
	}
	end := now.Add(time.Hour)
	if _, err := pause.Set(h, pause.Pause{Until: end, Reason: "the shop is open", By: "ada"}); err != nil {
		t.Fatal(err)
	}
	p := pause.Current(h)
	if p == nil || p.Reason != "the shop is open" || !p.Until.Equal(end) || !p.At.Equal(*now) {
		t.Fatalf("the pause is %+v", p)
	}
	err := p.Err()
	if !errors.Is(err, pause.ErrPaused) || !errors.Is(err, record.ErrBlocked) ||
		!strings.Contains(err.Error(), "by ada until ") || !strings.HasSuffix(err.Error(), ": the shop is open") {
		t.Errorf("its error is %v", err)
	}
	*now = end.Add(-time.Nanosecond)
	if pause.Current(h) == nil {
		t.Error("the pause is over before its end")
	}
	*now = end
	if p := pause.Current(h); p != nil {
		t.Errorf("the pause holds at its end: %+v", p)
	}
	*now = end.Add(-time.Minute)
	if was, err := pause.Lift(h); err != nil || was == nil || was.By != "ada" {
		t.Errorf("Lift: %+v, %v", was, err)
	}
	if was, err := pause.Lift(h); err != nil || was != nil {
		t.Errorf("the second Lift: %+v, %v", was, err)
	}
	events, err := h.Records.History()
	if err != nil || len(events) != 2 || events[0].Event != pause.EventPaused || events[1].Event != pause.EventUnpaused {
		t.Errorf("the history has %+v, %v", events, err)
	}
}

// TestUnreadablePauseHolds: what nobody can read may have been meant to hold.
func TestUnreadablePauseHolds(t *testing.T) {
	h, _ := newHost(t)
	if err := os.WriteFile(h.Path(record.StateDir+"/pause.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := pause.Current(h); p == nil || !strings.Contains(p.Err().Error(), "the pause cannot be read") {
		t.Errorf("the pause is %+v", p)
	}
	if _, err := pause.Lift(h); err != nil {
		t.Fatal(err)
	}
	if p := pause.Current(h); p != nil {
		t.Errorf("after Lift, the pause is %+v", p)
	}
}
