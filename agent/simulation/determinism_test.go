package simulation

import (
	"testing"
	"time"
)

// TestSameSeed: a seed gives the same history again, whoever watches.
func TestSameSeed(t *testing.T) {
	for seed := uint64(1); seed <= 100; seed++ {
		h := newHistory(seed)
		a, b := h.live(t, true), h.live(t, true)
		quiet := h.live(t, false)
		if one, two := a.Story(), b.Story(); one != two {
			t.Errorf("seed %d tells two stories:\n%s\n\n%s", seed, one, two)
		}
		if a.Crossings() != quiet.Crossings() {
			t.Errorf("seed %d crosses the seam %d times when it is watched, and %d times when it is not", seed,
				a.Crossings(), quiet.Crossings())
		}
		if t.Failed() {
			return
		}
	}
}

// TestSameSeedWithAKill: a shutdown waits for a process that systemd has to kill, and goes on at the same time in each
// play.
func TestSameSeedWithAKill(t *testing.T) {
	story := func() string {
		return playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.HangDisk(time.Hour, false)
			m.GC()
			time.Sleep(time.Minute)
			m.Reboot(true)
			m.rest()
		}).Story()
	}
	first := story()
	for range 20 {
		if again := story(); again != first {
			t.Fatalf("two stories:\n%s\n\n%s", first, again)
		}
	}
}
