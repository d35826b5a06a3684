package simulation

import (
	"runtime"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/outage"
)

// web is the port of the first service.
const web = 80

// ports are those of the machine, as a process sees them.
type ports struct{ p *process }

// held is what a process holds. The kernel releases it when the process ends.
type held struct {
	p      *process
	until  time.Time // when the timeout of the port ends in the kernel
	all    time.Time // the same of all ports
	closed bool
}

// isHeld reports whether new connections to the web server are held. The machine is locked.
func (m *Machine) isHeld() bool { return m.holdsUntil(func(h *held) time.Time { return h.until }) }

// isAllHeld reports whether new connections to every port are held. The machine is locked.
func (m *Machine) isAllHeld() bool { return m.holdsUntil(func(h *held) time.Time { return h.all }) }

// holdsUntil reports whether a process holds what has this timeout. The machine is locked.
func (m *Machine) holdsUntil(timeout func(*held) time.Time) bool {
	return slices.ContainsFunc(m.holds, func(h *held) bool {
		return !h.closed && !h.p.dead && time.Now().Before(timeout(h))
	})
}

// filters reports whether the packet filter has its rules in the kernel. The machine is locked.
func (m *Machine) filters() bool {
	return m.user != nil && slices.ContainsFunc(m.user.services, func(v *service) bool {
		return v.name == packetFilter && v.state == active
	})
}

// isOpen reports whether the web server listens. The machine is locked.
func (m *Machine) isOpen() bool { return m.user != nil && m.user.services[0].state == active }

// observe returns what looks at the port.
func (p *process) observe([]string) func() outage.Look {
	return func() outage.Look {
		m := p.m
		m.mu.Lock()
		defer m.mu.Unlock()
		if p.dead {
			runtime.Goexit()
		}
		l := outage.Look{Mount: m.mounted.mount}
		if m.isOpen() {
			l.Ports = []listening.Port{{Protocol: "tcp", Family: 4, Number: web}}
		}
		return l
	}
}

func (ports) Possible() error { return nil }

func (s ports) Open() (machine.HeldPorts, error) {
	m := s.p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &held{p: s.p}
	m.holds = append(m.holds, h)
	return h, nil
}

func (h *held) Hold(_ []uint16, limit time.Duration) error {
	return h.set(func() { h.until = time.Now().Add(limit) })
}

func (h *held) HoldAll(limit time.Duration) error {
	return h.set(func() { h.all = time.Now().Add(limit) })
}

func (h *held) Release([]uint16) error { return h.set(func() { h.until = time.Time{} }) }
func (h *held) ReleaseAll() error      { return h.set(func() { h.all = time.Time{} }) }
func (h *held) Close() error           { return h.set(func() { h.closed = true }) }

func (h *held) set(do func()) error {
	h.p.m.mu.Lock()
	defer h.p.m.mu.Unlock()
	do()
	return nil
}

// Drained implements the seam: nobody connects.
func (*held) Drained([]uint16, time.Duration) bool { return true }
