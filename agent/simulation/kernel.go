package simulation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/network"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/systemd"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// kernel is the running kernel as one process sees it.
type kernel struct{ p *process }

const kernelRelease, kernelVersion = "6.12.48", "#1 SMP"

func (k kernel) Facts(ctx context.Context) (f facts.Facts, err error) {
	err = pid1(k).do(ctx, "read the facts", func(m *Machine) error {
		f = facts.Facts{
			Root: m.mounted.id, Volatile: m.mounted.volatile, BootID: fmt.Sprintf("boot-%d", m.boots),
			KernelRelease: m.kernel.Release, KernelVersion: m.kernel.Version, CommandLine: m.commandLine,
			Architecture: runtime.GOARCH, Systemd: m.options.Systemd, SoftReboots: -1, State: m.systemState(),
		}
		if m.options.Systemd >= 256 {
			f.SoftReboots = m.softReboots
		}
		for _, u := range m.user.failed {
			f.Failed = append(f.Failed, u.name)
		}
		return nil
	})
	return f, err
}

func (kernel) Present() (facts.Present, error) { return facts.Present{}, nil }

func (kernel) StaleSysctls(facts.Past, []string) []facts.StaleSysctl { return nil }

func (kernel) Microcode() string { return "" }

func (k kernel) MustStay() (bool, error) {
	k.p.enter("read the kernel's command line")
	defer k.p.m.mu.Unlock()
	return k.p.m.stay, nil
}

func (k kernel) ModulesFrom(string) (string, error) {
	k.p.enter("look where the modules come from")
	defer k.p.m.mu.Unlock()
	return k.p.m.modulesFrom, nil
}

func (kernel) HaveModules(rootfs.Kernel) bool { return true }

func (kernel) OwnKernels() ([]rootfs.Kernel, error) { return nil, nil }

func (k kernel) SinceBoot() time.Duration {
	m := k.p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sinceBoot()
}

// Reboot never returns to who asks.
func (k kernel) Reboot() error {
	const patience = 30 * time.Second // for the disks
	m := k.p.m
	k.p.enter("boot the kernel")
	m.tell("%s boots the kernel without asking", k.p)
	if m.disk.Hung() != nil {
		k.p.wait(context.Background(), patience, m.disk.Hung())
	}
	m.bootKernel(true)
	m.mu.Unlock()
	runtime.Goexit()
	return nil
}

func (k kernel) RebootOnPanic() (restore func()) {
	m := k.p.m
	k.p.enter("have the kernel boot again when it panics")
	defer m.mu.Unlock()
	if m.panics {
		return func() {}
	}
	m.panics = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !k.p.dead {
			m.panics = false
		}
	}
}

// mounts is what is mounted at / and at /run/nextroot as one process sees it.
type mounts struct{ p *process }

func (s mounts) Mounted() (facts.Mounted, error) {
	s.p.enter("look what is mounted at /")
	defer s.p.m.mu.Unlock()
	return facts.Mounted{Root: s.p.m.mounted.id, Mount: s.p.m.mounted.mount}, nil
}

// Arm can be killed with the root half put together, and with the root armed.
func (s mounts) Arm(n assembly.Next) error {
	m := s.p.m
	s.p.enter("put together " + n.ID)
	m.armed, m.half = nil, true
	m.mu.Unlock()
	s.p.enter("arm " + n.ID)
	defer m.mu.Unlock()
	m.half = false
	next := &armedRoot{next: n, etc: "host"}
	if n.ID != switcher.HostRoot {
		switch {
		case !m.complete(n.ID):
			return fmt.Errorf("cannot mount %s: it is not on the disk", n.ID)
		case m.ills[n.ID] == Unjoinable:
			return fmt.Errorf("cannot mount %s: %w", n.ID, unix.EINVAL)
		case m.disk.Hung() != nil:
			return fmt.Errorf("cannot mount %s: %w", n.ID, unix.EIO)
		}
		var err error
		if next.etc, err = m.etcOf(trees(s).local(n.Etc)); err != nil {
			return err
		}
	}
	if m.mounted.volatile && n.Volatile {
		m.breach("%s arms %s on a copy of a copy", s.p, n.ID)
	}
	m.armed = next
	m.tell("%s is armed with %s, volatile: %v", n.ID, next.etc, n.Volatile)
	return nil
}

func (mounts) CheckVolatile(assembly.Next) error { return nil }

func (mounts) CheckOwners(string, []string) error { return nil }

func (mounts) PlanState(assembly.Next) ([]string, error) { return nil, nil }

func (mounts) Carried(n assembly.Next) []string { return n.Persist }

func (mounts) Kept(assembly.Next) []kept.Dir         { return nil }
func (mounts) Displaced([]kept.Dir, string) []string { return nil }
func (mounts) Restore([]kept.Dir, string) error      { return nil }
func (mounts) Detach(string) error                   { return nil }

func (s mounts) Disarm() error {
	s.p.enter("disarm")
	defer s.p.m.mu.Unlock()
	s.p.m.armed, s.p.m.half = nil, false
	return nil
}

func (s mounts) Armed() (string, error) {
	s.p.enter("look what is armed")
	defer s.p.m.mu.Unlock()
	switch a := s.p.m.armed; {
	case a == nil:
		return "", nil
	case a.next.ID == switcher.HostRoot:
		return "/dev/vda1", nil
	default:
		return a.next.ID, nil
	}
}

func (s mounts) Clear() error {
	s.p.enter("clear what is half put together")
	defer s.p.m.mu.Unlock()
	s.p.m.half = false
	return nil
}

func (s mounts) MakeWritable(p string) error {
	s.p.enter("make writable " + p)
	defer s.p.m.mu.Unlock()
	s.p.m.disk.ReadOnly = false
	return nil
}

// gateway is the one that the machine can reach while the network is not cut.
var gateway = netip.MustParseAddr("192.0.2.1")

// gate returns the health gate of the root that runs, as one process sees it. Others wait for its questions, so that
// one whose process has died gets an error.
func (p *process) gate(c health.Config) health.Gate {
	m := p.m
	asked := func(ctx context.Context, op string, act func(u *userspace) error) error {
		if err := p.ask(op); err != nil {
			return err
		}
		defer m.mu.Unlock()
		if m.isDeaf() {
			m.mu.Unlock()
			pause(time.Second, ctx.Done())
			m.mu.Lock()
			return errors.New("systemd does not answer")
		}
		return act(m.user)
	}
	return health.Gate{
		Config: c,
		Systemd: systemd.Manager{
			Starting: func(ctx context.Context) (list []string, err error) {
				err = asked(ctx, "gate: starting", func(u *userspace) error { list = m.startingUnits(); return nil })
				return list, err
			},
			Units: func(ctx context.Context) (list []systemd.Unit, err error) {
				err = asked(ctx, "gate: units", func(u *userspace) error {
					for _, s := range u.services {
						list = append(list, systemd.Unit{Name: s.name, Load: "loaded", Active: string(s.state)})
					}
					for _, f := range u.failed {
						list = append(list, systemd.Unit{Name: f.name, Load: "loaded", Active: "failed", Sub: "failed", Changed: f.at})
					}
					return nil
				})
				return list, err
			},
			Restarts: func(ctx context.Context, services []string) (map[string]int, error) {
				return map[string]int{}, asked(ctx, "gate: restarts", func(*userspace) error { return nil })
			},
			Start: func(ctx context.Context, unit string) (string, error) {
				return "done", asked(ctx, "gate: start "+unit, func(*userspace) error { return nil })
			},
			Requires: func(ctx context.Context, unit string) ([]string, error) { return nil, nil },
			Details:  func(ctx context.Context, unit string) (systemd.Details, error) { return systemd.Details{}, nil },
		},
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, unix.ECONNREFUSED },
		Gateways: func() ([]netip.Addr, error) {
			return []netip.Addr{gateway}, nil
		},
		AskGateway: func(ctx context.Context, a netip.Addr) error {
			if err := p.ask("gate: gateway"); err != nil {
				return err
			}
			cut := m.cut
			m.mu.Unlock()
			if cut {
				pause(3*time.Second, ctx.Done())
				return os.ErrDeadlineExceeded
			}
			return nil
		},
		Uplinks: func([]string) ([]network.Uplink, error) {
			address := network.Address{Address: netip.MustParseAddr("192.0.2.5")}
			return []network.Uplink{{Interface: uplink, Manager: p.managerOf(uplink, nil),
				Addresses: []network.Address{address}}}, nil
		},
		ManagerOf: p.managerOf,
	}
}

// uplink is the interface of the machine.
const uplink = "eth0"

// managerOf returns what configures an interface in the root that runs.
func (p *process) managerOf(string, []string) string {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.m.ills[p.m.mounted.id] == Unconfigured {
		return ""
	}
	return "systemd-networkd"
}

// etcOf returns what an /etc is; it is an error unless all of it is there. The machine is locked.
func (m *Machine) etcOf(dir string) (string, error) {
	label, there := m.disk.Now[dir+"/label"]
	rest, whole := m.disk.Now[dir+"/rest"]
	if !there || !whole || string(label.Content) != string(rest.Content) {
		return "", fmt.Errorf("%s is not a whole /etc", dir)
	}
	return string(label.Content), nil
}

// etcPath is where the /etc of a root lies.
func etcPath(id string) string { return path.Join(record.StateDir, "roots", id, "etc") }
