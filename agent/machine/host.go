package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/cgroups"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/hold"
	"github.com/updatectl/updatectl/switcher/holding"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/origin"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Host returns this machine for the root "/", and otherwise as much of it as can work on the tree below root. state is
// the directory of the agent's state, as an absolute path inside the tree.
func Host(root, state string) Machine {
	if absolute, err := filepath.Abs(root); err == nil {
		root = absolute
	}
	m := Machine{Root: root, Running: root == "/", Superuser: os.Geteuid() == 0, Now: time.Now, Gate: health.New}
	m.Disk = durable.OS{}
	if m.Running {
		m.Observe, m.Ports = outage.Observe, hostPorts{}
	}
	m.Systemd, m.Mounts, m.Kernel = hostSystemd{}, hostMounts{}, hostKernel{facts.Machine{Root: root}}
	m.Units, m.Groups = pid1.Units{}, hostGroups{}
	m.Trees = hostTrees{store.At(m.Path(state))}
	return m
}

// hostSystemd is PID 1 and logind of this machine.
type hostSystemd struct{ pid1.System }

// NotifyReady implements [Systemd].
func (hostSystemd) NotifyReady() error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("cannot notify systemd: %w", err)
	}
	return nil
}

// hostGroups are the control groups of this machine, and what their processes hold.
type hostGroups struct{ cgroups.Hierarchy }

func (hostGroups) Holding(group string, kept []string) ([]string, error) {
	return holding.Of(group, kept)
}
func (hostGroups) Holders() ([]holding.Holder, error) { return holding.Left() }

// hostPorts are the ports of this machine.
type hostPorts struct{}

func (hostPorts) Possible() error          { return hold.Possible() }
func (hostPorts) Open() (HeldPorts, error) { return hold.Open() }

// hostMounts are the mounts of this machine.
type hostMounts struct{}

func (hostMounts) Mounted() (facts.Mounted, error) { return facts.LookAtRoot() }
func (hostMounts) Arm(n assembly.Next) error       { return assembly.Arm(n) }

func (hostMounts) CheckOwners(root string, paths []string) error {
	return soon(func() error { return origin.CheckOwners(root, paths) }, nil)
}

func (hostMounts) PlanState(n assembly.Next) ([]string, error) { return n.PlanState() }

// Carried waits a moment only: a network file system whose server is gone must not keep the host in its root.
func (hostMounts) Carried(n assembly.Next) []string { return soon(n.Carried, n.Persist) }

// Kept waits as Carried does. Without an answer, nothing is compared after the switch.
func (hostMounts) Kept(n assembly.Next) []kept.Dir {
	return soon(func() []kept.Dir { return assembly.Observe(n) }, nil)
}

func (hostMounts) Displaced(dirs []kept.Dir, hostMount string) []string {
	silent := []string{"a disk or a server with state of this host does not answer"}
	return soon(func() []string { return kept.Displaced(dirs, hostMount) }, silent)
}

func (hostMounts) Restore(dirs []kept.Dir, hostMount string) error {
	return kept.Restore(dirs, hostMount)
}

// soon returns an answer about the state, or otherwise if it does not come soon.
func soon[T any](ask func() T, otherwise T) T {
	const patience = 5 * time.Second
	found := make(chan T, 1)
	go func() { found <- ask() }()
	select {
	case answer := <-found:
		return answer
	case <-time.After(patience):
		return otherwise
	}
}

func (hostMounts) Disarm() error                  { return assembly.Disarm() }
func (hostMounts) Armed() (string, error)         { return assembly.Armed() }
func (hostMounts) Clear() error                   { return assembly.Clear() }
func (hostMounts) Detach(path string) error       { return mount.Detach(path) }
func (hostMounts) MakeWritable(path string) error { return mount.MakeWritable(path) }

// hostKernel is the kernel of this machine, and the root in the tree.
type hostKernel struct{ facts.Machine }

func (k hostKernel) Facts(ctx context.Context) (facts.Facts, error) { return k.Machine.Facts(ctx) }
func (hostKernel) ModulesFrom(release string) (string, error)       { return facts.ModulesFrom(release) }
func (hostKernel) HaveModules(k rootfs.Kernel) bool                 { return facts.HaveModules(k) }
func (hostKernel) OwnKernels() ([]rootfs.Kernel, error)             { return facts.OwnKernels() }
func (hostKernel) Reboot() error                                    { return pid1.BootKernel() }
func (hostKernel) RebootOnPanic() (restore func())                  { return pid1.RebootOnPanic() }

func (hostKernel) SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
