package hold

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/keep"
)

// ports are the ports of a machine in memory.
type ports struct {
	held      map[uint16]time.Duration
	all       time.Duration // the limit of all ports, 0 when they are not held
	closed    bool
	fault     error // of the next call
	crowded   bool  // connections wait
	drainedAt int   // how many ports were held when the queues were waited for
}

func (p *ports) failure() error {
	err := p.fault
	p.fault = nil
	return err
}

func (p *ports) Possible() error { return p.failure() }
func (p *ports) Open() (machine.HeldPorts, error) {
	p.held, p.all, p.closed = map[uint16]time.Duration{}, 0, false
	return p, p.failure()
}

func (p *ports) Hold(list []uint16, limit time.Duration) error {
	for _, n := range list {
		p.held[n] = limit
	}
	return p.failure()
}

func (p *ports) Drained([]uint16, time.Duration) bool { p.drainedAt = len(p.held); return !p.crowded }

func (p *ports) Release(list []uint16) error {
	for _, n := range list {
		delete(p.held, n)
	}
	return p.failure()
}

func (p *ports) HoldAll(limit time.Duration) error { p.all = limit; return p.failure() }
func (p *ports) ReleaseAll() error                 { p.all = 0; return p.failure() }
func (p *ports) Close() error                      { p.held, p.all, p.closed = nil, 0, true; return nil }

// newHost returns a host with these ports, where programs listen at two.
func newHost(t *testing.T, p *ports) *host.Host {
	h := hosttest.New(t)
	h.Config.Switch.Hold = []string{"listening"}
	h.Machine.Ports = p
	open := []listening.Port{tcp(80, 4), tcp(22, 4)}
	h.Machine.Observe = func([]string) func() outage.Look {
		return func() outage.Look { return outage.Look{Mount: 1, Ports: open} }
	}
	h.Machine.Gate = func(health.Config) health.Gate {
		return health.Gate{Ports: func() ([]listening.Port, error) { return open, nil }}
	}
	return h
}

// TestHolder: ports are held and queues waited for before the switch, each port is released when it is back, and all
// are in the end.
func TestHolder(t *testing.T) {
	p := new(ports)
	o := Begin(t.Context(), newHost(t, p), record.Switch{}, nil)
	if len(p.held) != 2 || p.held[80] != Limit || p.drainedAt != 2 {
		t.Fatalf("held are %v, and %d when queues were waited for", p.held, p.drainedAt)
	}
	o.See(1, outage.Look{Mount: 2})
	o.See(2, outage.Look{Mount: 2, Ports: []listening.Port{tcp(80, 4)}})
	o.See(time.Second, outage.Look{Mount: 2, Ports: []listening.Port{tcp(80, 4)}})
	if _, held := p.held[22]; len(p.held) != 1 || !held {
		t.Errorf("when port 80 is back, held are %v", p.held)
	}
	o.See(2*time.Second, outage.Look{Mount: 2})
	if len(p.held) != 2 {
		t.Errorf("when port 80 has closed again, held are %v", p.held)
	}
	o.End()
	if !p.closed {
		t.Error("in the end, ports are still held")
	}
	o.See(3*time.Second, outage.Look{Mount: 3})
	o.End() // the guard may end twice
}

// survivor has one service that a soft reboot leaves alone by its own unit file.
type survivor struct{ machine.Units }

func (survivor) Active(context.Context) ([]keep.Active, error) {
	return []keep.Active{
		{Name: "lb.service", Survives: true, Runs: true}, {Name: "ssh.service", Stops: true, Runs: true},
	}, nil
}

// TestHoldsNoSurvivor: the port of a service that never stops is not held.
func TestHoldsNoSurvivor(t *testing.T) {
	p := new(ports)
	h := newHost(t, p)
	h.Machine.Units = survivor{}
	lb, ssh := tcp(80, 4), tcp(22, 4)
	lb.Unit, ssh.Unit = "lb.service", "ssh.service"
	h.Machine.Gate = func(health.Config) health.Gate {
		return health.Gate{Ports: func() ([]listening.Port, error) { return []listening.Port{lb, ssh}, nil }}
	}
	if Begin(t.Context(), h, record.Switch{}, nil); len(p.held) != 1 || p.held[22] != Limit {
		t.Errorf("held are %v, want 22 alone", p.held)
	}
}

// TestHolderFails: a fault releases all ports, and keeps nobody from the switch.
func TestHolderFails(t *testing.T) {
	fault := errors.New("the kernel says no")
	for name, cause := range map[string]func(*testing.T, *ports, *host.Host){
		"it cannot begin": func(t *testing.T, p *ports, h *host.Host) {
			p.fault = fault
			if o := Begin(t.Context(), h, record.Switch{}, nil); o != nil {
				t.Errorf("%v holds %v", o, p.held)
			}
			p.closed = p.closed || len(p.held) == 0
		},
		"connections wait": func(t *testing.T, p *ports, h *host.Host) {
			p.crowded = true
			o := Begin(t.Context(), h, record.Switch{}, nil)
			if len(p.held) != 2 {
				t.Errorf("held are %v", p.held)
			}
			o.End()
		},
		"it cannot release": func(t *testing.T, p *ports, h *host.Host) {
			o := Begin(t.Context(), h, record.Switch{}, nil)
			p.fault = fault
			o.See(1, outage.Look{Mount: 2, Ports: []listening.Port{tcp(80, 4)}})
			o.See(time.Second, outage.Look{Mount: 2, Ports: []listening.Port{tcp(80, 4)}})
		},
		"it cannot hold again": func(t *testing.T, p *ports, h *host.Host) {
			o := Begin(t.Context(), h, record.Switch{}, nil)
			o.See(1, outage.Look{Mount: 2, Ports: []listening.Port{tcp(80, 4), tcp(22, 4)}})
			o.See(time.Second, outage.Look{Mount: 2, Ports: []listening.Port{tcp(80, 4), tcp(22, 4)}})
			p.fault = fault
			o.See(2*time.Second, outage.Look{Mount: 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(ports)
			cause(t, p, newHost(t, p))
			if !p.closed || len(p.held) > 0 {
				t.Errorf("%v are held", p.held)
			}
		})
	}
	var none *Holder
	none.See(1, outage.Look{})
	none.End()
}

func TestPlan(t *testing.T) {
	p := new(ports)
	h := newHost(t, p)
	if got := PlanOf(h, 257, nil); got == nil || !slices.Equal(got.Ports, []uint16{22, 80}) || got.Reason != "" {
		t.Errorf("the plan is %+v", got)
	}
	p.fault = errors.New("this kernel has no nf_tables")
	if got := PlanOf(h, 257, nil); got == nil || got.Ports == nil || len(got.Ports) != 0 ||
		!strings.HasPrefix(got.Reason, "this kernel has no nf_tables; new connections are refused") {
		t.Errorf("where nothing can be held, the plan is %+v", got)
	}
	if got := PlanOf(h, 254, nil); got == nil || len(got.Ports) != 0 || !strings.Contains(got.Reason, "systemd 254") {
		t.Errorf("with a systemd that ends the guard, the plan is %+v", got)
	}
	h.Config.Switch.Hold = []string{"tcp:8080"}
	if got := PlanOf(h, 257, nil); got == nil || len(got.Ports) != 0 || got.Reason == "" {
		t.Errorf("where nobody listens, the plan is %+v", got)
	}
	h.Config.Switch.Hold = nil
	if got := PlanOf(h, 257, nil); got != nil {
		t.Errorf("without the key, the plan is %+v", got)
	}
}
