package simulation

import (
	"context"

	"github.com/updatectl/updatectl/switcher/cgroups"
	systemd "github.com/updatectl/updatectl/switcher/pid1"
)

// units is a PID 1 that a soft reboot leaves no unit active in.
type units struct{}

func (units) Services(context.Context) ([]systemd.Service, error)  { return nil, nil }
func (units) Unstopped(context.Context) ([]systemd.Service, error) { return nil, nil }
func (units) Renew(context.Context, string) error                  { return nil }
func (units) StartWanted(context.Context) ([]string, error)        { return nil, nil }
func (units) StartLingering(context.Context) ([]string, error)     { return nil, nil }
func (units) TriggerDevices(context.Context) error                 { return nil }

// groups are the control groups of a machine as one process sees them. Until somebody calls [Machine.Linger], all other
// processes have ended when a root is armed.
type groups struct{ p *process }

// lingering is the control group of what a user runs.
const lingering = "/user.slice/user-1000.slice/session-1.scope"

func (g groups) List() (list []cgroups.Group, err error) {
	g.do("list the control groups", func(m *Machine) {
		list = append(list, cgroups.Group{Path: lingering, Frozen: m.frozenUser, Processes: []cgroups.Process{{UID: 1000}}})
	})
	return list, nil
}

func (g groups) Freeze(groups []string) ([]string, error) {
	g.do("freeze what a user runs", func(m *Machine) {
		m.tell("%s freezes %v", g.p, groups)
		m.frozenUser = true
	})
	return nil, nil
}

func (g groups) Thaw() error {
	g.do("thaw", func(m *Machine) {
		if m.frozenUser {
			m.tell("%s thaws what is frozen", g.p)
		}
		m.frozenUser = false
	})
	return nil
}

func (groups) ThawLate() error     { return nil } // package cgroups tests its time
func (groups) Kill([]string) error { return nil }

// do crosses the seam where a user runs something.
func (g groups) do(op string, act func(*Machine)) {
	m := g.p.m
	m.mu.Lock()
	lingers := m.lingers
	m.mu.Unlock()
	if !lingers {
		return
	}
	g.p.enter(op)
	defer m.mu.Unlock()
	act(m)
}
