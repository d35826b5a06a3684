package guard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/outage"
)

// slowPorts are held after some time, and released after it, too.
type slowPorts struct {
	takes        time.Duration
	panics       bool
	held, closed bool
}

func (p *slowPorts) Possible() error { return nil }

func (p *slowPorts) Open() (machine.HeldPorts, error) {
	if p.panics {
		panic("no such thing")
	}
	time.Sleep(p.takes)
	return p, nil
}

func (p *slowPorts) Hold([]uint16, time.Duration) error   { p.held = true; return nil }
func (p *slowPorts) Drained([]uint16, time.Duration) bool { return true }
func (p *slowPorts) HoldAll(time.Duration) error          { p.held = true; return nil }
func (p *slowPorts) ReleaseAll() error                    { return nil }
func (p *slowPorts) Release([]uint16) error               { return nil }
func (p *slowPorts) Close() error                         { time.Sleep(p.takes); p.closed = true; return nil }
func (p *slowPorts) look([]string) func() outage.Look {
	return func() outage.Look {
		return outage.Look{Mount: 1, Ports: []listening.Port{{Protocol: "tcp", Family: 4, Number: 80}}}
	}
}

// TestHoldNeverStopsTheGuard: a kernel that does not answer, or a fault nobody thought of, costs the hold only, and
// nothing stays held.
func TestHoldNeverStopsTheGuard(t *testing.T) {
	for name, c := range map[string]struct {
		ports slowPorts
		holds bool
		most  time.Duration // that the guard waits
	}{
		"at once":         {ports: slowPorts{}, holds: true},
		"slowly":          {ports: slowPorts{takes: time.Second}, holds: true, most: time.Second},
		"much too slowly": {ports: slowPorts{takes: time.Minute}, most: holdPatience},
		"with a fault":    {ports: slowPorts{panics: true}},
	} {
		t.Run(name, func(t *testing.T) {
			gd := newGuard(t)
			gd.Config.Switch.Hold = []string{"listening"}
			synctest.Test(t, func(t *testing.T) {
				p := c.ports
				gd.Machine.Ports, gd.Machine.Observe = &p, p.look
				w := &watch{Guard: gd}
				begin := time.Now()
				held := holdPorts(t.Context(), w)
				if took := time.Since(begin); (held != nil) != c.holds || took > c.most {
					t.Errorf("it holds %v after %v", held, took)
				}
				begin = time.Now()
				release(w, held)
				if took := time.Since(begin); took > c.most {
					t.Errorf("the guard waits %v for the release", took)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if p.closed == p.panics {
					t.Errorf("in the end, it is released: %v", p.closed)
				}
			})
		})
	}
}
