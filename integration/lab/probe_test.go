package lab

import (
	"errors"
	"testing"
	"time"
)

func TestProbeNotesOutages(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	refused, reset := errors.New("refused"), errors.New("reset")
	p := &Probe{}
	for _, attempt := range []struct {
		ms   int
		text string
		err  error
	}{
		{0, "", refused}, // before the first answer nothing is away
		{5, "one", nil},
		{10, "one", nil},
		{15, "", reset},
		{20, "", refused},
		{25, "two", nil},
		{30, "", reset}, // one that has not ended does not count yet
	} {
		p.note(at(attempt.ms), at(attempt.ms+1), attempt.text, attempt.err)
	}
	outages := p.Outages()
	if len(outages) != 1 {
		t.Fatalf("got %d outages, want 1: %v", len(outages), outages)
	}
	if o := outages[0]; o.Length() != 16*time.Millisecond || o.Failures != 2 || !errors.Is(o.First, reset) {
		t.Errorf("got outage %v from %v to %v", o, o.From, o.To)
	}
	answers := p.Answers()
	if len(answers) != 2 || answers[0].Text != "one" || answers[1].Text != "two" {
		t.Errorf("got answers %v, want one, then two", answers)
	}
}
