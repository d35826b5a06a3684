package simulation

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// gaps is what somebody sees who looks at the port of the web server all the time, while a guard watches.
type gaps struct {
	// refused is the longest time in which connections were refused, silent that in which they were held although the
	// server listens.
	refused, silent time.Duration
	held            bool // ever
}

// watchPort looks at the port until it is stopped.
func (m *Machine) watchPort(stop <-chan struct{}) *gaps {
	g := &gaps{}
	const pause = 5 * time.Millisecond
	go func() {
		var refused, silent time.Duration
		for {
			m.mu.Lock()
			guarded := m.guard != nil && !m.guard.dead && m.guard.notified
			open, held := m.isOpen(), m.isHeld()
			m.mu.Unlock()
			g.held = g.held || held
			refused, silent = refused+pause, silent+pause
			if open || held || !guarded {
				refused = 0
			}
			if !open || !held {
				silent = 0
			}
			g.refused, g.silent = max(g.refused, refused), max(g.silent, silent)
			select {
			case <-stop:
				return
			case <-time.After(pause):
			}
		}
	}()
	return g
}

// TestHeldPorts: while a guard watches, connections are held whenever nobody listens, and not much longer; and a guard
// that ends releases them itself, however the switch ended.
func TestHeldPorts(t *testing.T) {
	const look = 50 * time.Millisecond // until the guard sees that the port has closed
	apply := func(m *Machine) { m.Apply(agent.ApplyOptions{}).Wait() }
	for name, c := range map[string]struct {
		do              func(*Machine)
		runs            string
		refused, silent time.Duration // at most
	}{
		"switched": {func(m *Machine) { m.Publish("v2", Healthy); apply(m) }, "v2", 0, 3 * time.Second},
		// Nobody waits for the hold to begin on an automatic rollback: that shows at the next look.
		"rolled back":  {func(m *Machine) { m.Publish("v2", Fails); apply(m) }, "v1", look, 3 * time.Second},
		"by the guard": {func(m *Machine) { m.Publish("v2", KillsConfirm); apply(m) }, "v1", look, 3 * time.Second},
		"refused":      {func(m *Machine) { m.Publish("v2", Healthy); m.Inhibit(true); apply(m) }, "v1", 0, 3 * time.Second},
		"stuck": {func(m *Machine) {
			m.Publish("v2", Healthy)
			m.SlowService(time.Hour, true)
			apply(m)
		}, "v1", 0, 3 * time.Second},
		"withdrawn": {func(m *Machine) {
			m.Publish("v2", Healthy)
			c := m.Apply(agent.ApplyOptions{})
			m.until(record.PhaseArmed)
			for !m.guards() {
				time.Sleep(time.Millisecond)
			}
			m.kill(c)
		}, "v1", 0, 16 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			o := ordinary()
			o.Holds = true
			var g *gaps
			m := playFrom(t, "v1", o, func(m *Machine) {
				stop := make(chan struct{})
				defer close(stop)
				g = m.watchPort(stop)
				c.do(m)
				m.Settle(15 * time.Minute)
				m.CheckRest()
			})
			t.Logf("refused for %v, silent for %v", g.refused, g.silent)
			if !g.held || g.refused > c.refused || g.silent > c.silent {
				t.Errorf("held: %v; connections were refused for %v, and held in spite of a server for %v", g.held, g.refused,
					g.silent)
			}
			for _, h := range m.holds {
				if !h.closed {
					t.Errorf("%s ended without releasing its ports", h.p)
				}
			}
			expect(t, m, c.runs)
		})
	}
}
