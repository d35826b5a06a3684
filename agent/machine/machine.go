// Package machine is the only seam between the agent and the machine that it runs on. It promises that everything that
// touches PID 1, logind, mounts, the kernel, the clock, the disk or the trees of roots goes through a [Machine], so
// that the same agent runs on a simulated machine.
package machine

import (
	"context"
	"path/filepath"
	"time"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/cgroups"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/holding"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Machine is the machine that an agent works on. [Host] returns the real one.
type Machine struct {
	// Root is the directory of the tree to work on, "/" for the running host.
	Root string
	// Running reports whether the tree is that of the running host, which can switch.
	Running bool
	// Superuser reports whether this process may change the machine: its user is root.
	Superuser bool

	Systemd  Systemd
	Units    Units
	Groups   Groups
	Kernel   Kernel
	Mounts   Mounts
	Disk     durable.Disk
	Trees    Trees
	Boot     Boot
	HostRoot HostRoot
	// Now is the wall clock. It may jump; [Kernel.SinceBoot] does not.
	Now func() time.Time
	// Gate makes the health gate of the running root.
	Gate func(health.Config) health.Gate
	// Observe returns what looks at the services of a list and at the open ports, see [outage.Observe]; nil where nothing
	// can be measured.
	Observe func(services []string) func() outage.Look
	// Ports holds connections to ports, nil where that is impossible.
	Ports Ports
}

// Ports are the ports of this machine at which connections can be held, see package hold of the switcher. Possible
// returns why they cannot, and Open what holds them.
type Ports interface {
	Possible() error
	Open() (HeldPorts, error)
}

// HeldPorts holds connections until it is closed. Each call is documented at [hold.Table].
type HeldPorts interface {
	Hold(ports []uint16, limit time.Duration) error
	Drained(ports []uint16, limit time.Duration) bool
	Release(ports []uint16) error
	HoldAll(limit time.Duration) error
	ReleaseAll() error
	Close() error
}

// Path returns where a file of the machine, given as an absolute path inside it, lies for this process.
func (m Machine) Path(p string) string { return filepath.Join(m.Root, p) }

// Systemd is PID 1 and logind. Each call is documented at [pid1.System].
type Systemd interface {
	SoftReboot(context.Context) error
	SoftRebootNow(context.Context) error
	SoftRebootHard(context.Context) error
	FullReboot(context.Context) error
	FullRebootNow(context.Context) error
	SoftRebootQueued(context.Context) (bool, error)
	ShuttingDown(context.Context) (bool, error)
	CancelShutdown(ctx context.Context, before []string) (left []string, err error)
	KillUnits(ctx context.Context, units []string) error

	UnitActive(ctx context.Context, unit string) (bool, error)
	Unmounted(ctx context.Context, path string) (mountUnit string, err error)
	ActiveUnits(context.Context) ([]string, error)
	UnitStops(context.Context) ([]pid1.UnitStop, error)
	Ending(context.Context) ([]ending.Ending, error)
	StartGuard(context.Context) error
	HoldArmUnit(context.Context) error
	ReleaseArmUnit(context.Context) error
	BeginConfirm(context.Context) error
	AwaitConfirm(context.Context) error
	EndConfirm(context.Context) (bool, error)
	ForgetFailures(context.Context) error
	ForgetGone(context.Context) error

	AskManager(context.Context) (pid1.Manager, error)
	AskTrouble(ctx context.Context, since time.Duration) (pid1.Trouble, error)
	NotifyReady() error
}

// Units is PID 1 and udev, for what a soft reboot leaves active. Each call is documented at [pid1.Units].
type Units interface {
	Services(context.Context) ([]pid1.Service, error)
	Unstopped(context.Context) ([]pid1.Service, error)
	Renew(ctx context.Context, unit string) error
	StartWanted(context.Context) (started []string, err error)
	StartLingering(context.Context) (started []string, err error)
	TriggerDevices(context.Context) error

	Kept(ctx context.Context, names []string) (units map[string]keep.Now, groups map[string]string, err error)
	Active(context.Context) ([]keep.Active, error)
	States(ctx context.Context, names []string) ([]pid1.UnitState, error)
	Reload(context.Context) error
	StartHeld(ctx context.Context, sockets []string) (started []string, err error)
}

// Groups are the control groups of this machine. Each call is documented at [cgroups.Hierarchy].
type Groups interface {
	List() ([]cgroups.Group, error)
	Freeze(groups []string) (moving []string, err error)
	Thaw() error
	ThawLate() error
	Kill(groups []string) error
	// Holding returns what the processes of a group hold of the running root, besides kept directories, and Holders who
	// holds one that was left, see package holding.
	Holding(group string, kept []string) ([]string, error)
	Holders() ([]holding.Holder, error)
}

// Kernel is the running kernel and the facts about it and about the root that runs on it. Calls without a comment are
// documented in package facts.
type Kernel interface {
	Facts(context.Context) (facts.Facts, error)
	Present() (facts.Present, error)
	StaleSysctls(p facts.Past, keys []string) []facts.StaleSysctl
	Microcode() string
	MustStay() (bool, error)
	ModulesFrom(release string) (string, error)
	HaveModules(rootfs.Kernel) bool
	OwnKernels() ([]rootfs.Kernel, error)
	// SinceBoot returns the time since the kernel booted, by the monotonic clock, as systemd does in the timestamps of
	// units; 0 if it cannot be read.
	SinceBoot() time.Duration
	// Reboot does a full reboot immediately, without systemd, see [pid1.BootKernel].
	Reboot() error
	// RebootOnPanic makes the kernel reboot if it panics, unless the host has its own setting; restore undoes that.
	RebootOnPanic() (restore func())
}

// Mounts is what is mounted at / and at /run/nextroot.
type Mounts interface {
	// Mounted returns the root mounted at /, and the number of that mount.
	Mounted() (facts.Mounted, error)
	// Arm mounts a root at /run/nextroot; Disarm unmounts it.
	Arm(assembly.Next) error
	// PlanState returns the state paths that Arm would make for a root, or why it could not carry one over, see
	// [assembly.Next.PlanState].
	PlanState(assembly.Next) (made []string, err error)
	// CheckVolatile returns an [assembly.ErrVolatile] unless a root can run on a throw-away copy of the state.
	CheckVolatile(assembly.Next) error
	// CheckOwners returns an error for each path that others than root can make lead elsewhere, see
	// [origin.CheckOwners].
	CheckOwners(root string, paths []string) error
	// Carried returns the state paths that lie on storage of their own now. What does not answer counts.
	Carried(assembly.Next) []string
	// Kept returns where the state of a root lies now. Displaced returns the reasons why it lies elsewhere than it did.
	// Restore mounts what is missing of it again. See package kept.
	Kept(assembly.Next) []kept.Dir
	Displaced(dirs []kept.Dir, hostMount string) []string
	Restore(dirs []kept.Dir, hostMount string) error
	Disarm() error
	// Armed returns the identity of the root mounted at /run/nextroot, "" for none. For the host root, and for what
	// others mounted there, it returns the source of the mount.
	Armed() (string, error)
	// Clear unmounts what a killed arming step left behind where roots are assembled.
	Clear() error
	// Detach unmounts what is mounted at a path, see [mount.Detach].
	Detach(path string) error
	// MakeWritable undoes a read-only remount of a state directory.
	MakeWritable(path string) error
}

// MountedRoot returns the identity of the root that is mounted at /.
func (m Machine) MountedRoot() (string, error) {
	mounted, err := m.Mounts.Mounted()
	return mounted.Root, err
}
