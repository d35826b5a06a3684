package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	"github.com/updatectl/updatectl/switcher/hostroot"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/origin"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/volatile"
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
	m.Trees, m.Boot, m.HostRoot = hostTrees{store.At(m.Path(state))}, hostBoot{}, hostroot.Programs{}
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

func (hostMounts) CheckVolatile(n assembly.Next) error { return assembly.CheckVolatile(n) }

func (hostMounts) PlanState(n assembly.Next) (made []string, err error) {
	return made, volatile.Beneath(func() error { made, err = n.PlanState(); return err })
}

// Carried waits a moment only: a network file system whose server is gone must not keep the host in its root.
func (hostMounts) Carried(n assembly.Next) []string {
	return soon(func() []string { return beneath(n.Carried, n.Persist) }, n.Persist)
}

// Kept waits as Carried does. Without an answer, nothing is compared after the switch.
func (hostMounts) Kept(n assembly.Next) []kept.Dir {
	return soon(func() []kept.Dir { return beneath(func() []kept.Dir { return assembly.Observe(n) }, nil) }, nil)
}

func (hostMounts) Displaced(dirs []kept.Dir, hostMount string) []string {
	silent := []string{"a disk or a server with state of this host does not answer"}
	return soon(func() []string {
		displaced := beneath(func() []string { return kept.Displaced(dirs, hostMount) }, silent)
		return append(exposed(dirs, hostMount), displaced...)
	}, silent)
}

// exposed returns what is wrong with a volatile root: the directories that it has as they really are.
func exposed(dirs []kept.Dir, hostMount string) (reasons []string) {
	var paths []string
	for _, d := range dirs {
		if d.Path != hostMount {
			paths = append(paths, d.Path)
		}
	}
	const own = "/var/lib/updatectl" // the agent's own directory
	real, err := volatile.Exposed(paths, own)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range real {
		reasons = append(reasons, p+" is the real one, and not the copy that this volatile root should have")
	}
	return reasons
}

// beneath returns an answer about the state of the host, which a volatile root has beneath a copy, or otherwise if it
// cannot look there.
func beneath[T any](ask func() T, otherwise T) T {
	answer := otherwise
	if err := volatile.Beneath(func() error { answer = ask(); return nil }); err != nil {
		return otherwise
	}
	return answer
}

// Restore mounts only the host root again in a volatile root: its state lies beneath copies, and the arming step looks
// after that.
func (hostMounts) Restore(dirs []kept.Dir, hostMount string) error {
	isVolatile, err := facts.IsVolatile()
	if err != nil {
		return err
	}
	if isVolatile {
		dirs = slices.DeleteFunc(slices.Clone(dirs), func(d kept.Dir) bool { return d.Path != hostMount })
	}
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

func (hostMounts) Disarm() error            { return assembly.Disarm() }
func (hostMounts) Armed() (string, error)   { return assembly.Armed() }
func (hostMounts) Clear() error             { return assembly.Clear() }
func (hostMounts) Detach(path string) error { return mount.Detach(path) }

func (hostMounts) MakeWritable(path string) error {
	return volatile.Beneath(func() error { return mount.MakeWritable(path) })
}

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
