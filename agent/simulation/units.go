package simulation

import (
	"context"

	"github.com/updatectl/updatectl/switcher/cgroups"
	"github.com/updatectl/updatectl/switcher/holding"
	"github.com/updatectl/updatectl/switcher/keep"
	systemd "github.com/updatectl/updatectl/switcher/pid1"
)

// units is a PID 1 that a soft reboot leaves no unit active in but a kept socket, as one process sees it.
type units struct{ p *process }

// socket is the unit that machines with [Options.Keeps] keep.
const socket = "web.socket"

// packetFilter is the unit that machines with [Options.Filters] have.
const packetFilter = "nftables.service"

// holdFiles are the drop-ins by which systemd leaves a socket alone, once it has read them.
const holdFiles = "/run/systemd/system/*.d/60-updatectl-hold.conf"

func (units) Active(context.Context) ([]keep.Active, error) { return nil, nil }

func (u units) Kept(_ context.Context, names []string) (map[string]keep.Now, map[string]string, error) {
	u.p.enter("ask about units")
	defer u.p.m.mu.Unlock()
	now := map[string]keep.Now{}
	for _, name := range names {
		now[name] = keep.Now{Active: true, Service: "web.service"}
	}
	return now, map[string]string{}, nil
}

// States knows the services only.
func (u units) States(ctx context.Context, names []string) (list []systemd.UnitState, err error) {
	err = pid1(u).do(ctx, "ask about units", func(m *Machine) error {
		for _, name := range names {
			state := systemd.UnitState{Name: name, Load: "not-found", Active: string(inactive)}
			for _, v := range m.user.services {
				if v.name == name {
					state.Load, state.Active = "loaded", string(v.state)
					state.Queued = v.state == inactive && !m.user.up && m.shutdown == nil
				}
			}
			list = append(list, state)
		}
		return nil
	})
	return list, err
}

func (u units) Reload(context.Context) error {
	u.p.enter("have systemd read its units")
	defer u.p.m.mu.Unlock()
	u.p.m.readUnits()
	return nil
}

func (u units) StartHeld(context.Context, []string) ([]string, error) {
	u.p.enter("start services of sockets")
	u.p.m.mu.Unlock()
	return nil, nil
}

// readUnits is what systemd does when it starts, and when it is asked to. The machine is locked.
func (m *Machine) readUnits() { m.held = len(m.run.Glob(holdFiles)) > 0 }

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

func (groups) Holding(string, []string) ([]string, error) { return nil, nil }
func (groups) Holders() ([]holding.Holder, error)         { return nil, nil }

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
