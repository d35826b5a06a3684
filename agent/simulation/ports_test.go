package simulation

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// gaps is what somebody sees who tries to connect all the time, while a guard watches.
type gaps struct {
	// missed is the longest time in which connections should have been held and were not, silent that in which they were
	// held although they need not be.
	missed, silent time.Duration
	held           bool // ever
}

// watchHolds looks at the machine until it is stopped. Both functions are called with the machine locked: good is
// whether no connection needs to be held, held whether they are.
func (m *Machine) watchHolds(stop <-chan struct{}, good, held func() bool) *gaps {
	g := &gaps{}
	const pause = 5 * time.Millisecond
	go func() {
		var missed, silent time.Duration
		for {
			m.mu.Lock()
			guarded := m.guard != nil && !m.guard.dead && m.guard.notified
			isGood, isHeld := good(), held()
			m.mu.Unlock()
			g.held = g.held || isHeld
			if guarded { // a guard lets go right before it ends
				g.missed = max(g.missed, missed)
			}
			missed, silent = missed+pause, silent+pause
			if isGood || isHeld || !guarded {
				missed = 0
			}
			if !isGood || !isHeld {
				silent = 0
			}
			g.silent = max(g.silent, silent)
			select {
			case <-stop:
				return
			case <-time.After(pause):
			}
		}
	}()
	return g
}

// holdStories are ways in which a switch goes, each with the root that runs in the end, and for how long connections
// may be held in vain at most. Goes back is whether the host leaves a root automatically.
var holdStories = map[string]struct {
	do       func(*Machine)
	runs     string
	silent   time.Duration
	goesBack bool
}{
	"switched":     {func(m *Machine) { m.Publish("v2", Healthy); apply(m) }, "v2", 3 * time.Second, false},
	"rolled back":  {func(m *Machine) { m.Publish("v2", Fails); apply(m) }, "v1", 3 * time.Second, true},
	"by the guard": {func(m *Machine) { m.Publish("v2", KillsConfirm); apply(m) }, "v1", 3 * time.Second, true},
	"refused": {func(m *Machine) { m.Publish("v2", Healthy); m.Inhibit(true); apply(m) }, "v1", 3 * time.Second,
		false},
	"stuck": {func(m *Machine) {
		m.Publish("v2", Healthy)
		m.SlowService(time.Hour, true)
		apply(m)
	}, "v1", 3 * time.Second, false},
	"withdrawn": {func(m *Machine) {
		m.Publish("v2", Healthy)
		c := m.Apply(agent.ApplyOptions{})
		m.until(record.PhaseArmed)
		for !m.guards() {
			time.Sleep(time.Millisecond)
		}
		m.kill(c)
	}, "v1", 16 * time.Second, false},
}

func apply(m *Machine) { m.Apply(agent.ApplyOptions{}).Wait() }

// playHolds plays a story of holdStories, and returns what was seen.
func playHolds(t *testing.T, story string, o Options, watch func(*Machine, <-chan struct{}) *gaps) *gaps {
	c := holdStories[story]
	o.Prompt = true // while logind waits for somebody, ports are held in vain
	var g *gaps
	m := playFrom(t, "v1", o, func(m *Machine) {
		stop := make(chan struct{})
		defer close(stop)
		g = watch(m, stop)
		c.do(m)
		m.Settle(15 * time.Minute)
		m.CheckRest()
	})
	t.Logf("missed for %v, silent for %v", g.missed, g.silent)
	for _, h := range m.holds {
		if !h.closed {
			t.Errorf("%s ended without releasing its ports", h.p)
		}
	}
	expect(t, m, c.runs)
	return g
}

// TestHeldPorts: while a guard watches, connections are held whenever nobody listens, and not much longer; and a guard
// that ends releases them itself, however the switch ended.
func TestHeldPorts(t *testing.T) {
	for name, c := range holdStories {
		t.Run(name, func(t *testing.T) {
			o := ordinary()
			o.Holds = true
			g := playHolds(t, name, o, func(m *Machine, stop <-chan struct{}) *gaps {
				return m.watchHolds(stop, m.isOpen, m.isHeld)
			})
			refused := time.Duration(0)
			if c.goesBack { // nobody waits for the hold to begin: that shows at the next look
				refused = 50 * time.Millisecond
			}
			if !g.held || g.missed > refused || g.silent > c.silent {
				t.Errorf("held: %v; connections were refused for %v, and held in spite of a server for %v", g.held, g.missed,
					g.silent)
			}
		})
	}
}

// TestHeldFirewall: while a guard watches, connections are held whenever the packet filter is away, and not much
// longer.
func TestHeldFirewall(t *testing.T) {
	for name, c := range holdStories {
		t.Run(name, func(t *testing.T) {
			o := ordinary()
			o.Filters = true
			g := playHolds(t, name, o, func(m *Machine, stop <-chan struct{}) *gaps {
				return m.watchHolds(stop, m.filters, m.isAllHeld)
			})
			exposed := time.Duration(0)
			if c.goesBack { // until PID 1 is asked again
				exposed = time.Second
			}
			if !g.held || g.missed > exposed || g.silent > c.silent+3*time.Second {
				t.Errorf("held: %v; the host was open for %v, and silent in spite of its filter for %v", g.held, g.missed,
					g.silent)
			}
		})
	}
}
