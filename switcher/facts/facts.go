// Package facts reads what runs on this machine: the root, the kernel, the processor, and what earlier roots left in
// the running kernel. It promises to change nothing.
package facts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Facts are what the agent knows about the running host before it decides anything.
type Facts struct {
	// Root is the identity of the root mounted at /: HostRoot or an image root's identity.
	Root string `json:"root"`
	// Volatile is whether that root runs on a throw-away copy of the state.
	Volatile bool `json:"volatile,omitempty"`
	// BootID changes with a full reboot, not with a soft one (/proc/sys/kernel/random/boot_id).
	BootID string `json:"boot_id"`
	// KernelRelease and KernelVersion are uname -r and uname -v.
	KernelRelease string `json:"kernel_release"`
	KernelVersion string `json:"kernel_version"`
	// KernelBuildID is the GNU build id of the running kernel in hexadecimal digits, "" when it has none.
	KernelBuildID string `json:"kernel_build_id,omitempty"`
	// Architecture is GOARCH.
	Architecture string `json:"architecture"`
	// Systemd is the major version of PID 1, 0 when PID 1 is not systemd. For another tree, it is the version installed
	// there.
	Systemd int `json:"systemd"`
	// SoftReboots is the number of soft reboots since the kernel booted; -1 when PID 1 does not count them (before version
	// 256).
	SoftReboots int `json:"soft_reboots"`
	// State is the state of the system in systemd's words: running, degraded, starting, stopping …
	State string `json:"state,omitempty"`
	// Failed lists the failed units.
	Failed []string `json:"failed_units,omitempty"`

	// At is when the facts were read, KernelBooted when the kernel was booted.
	At           time.Time `json:"at,omitzero"`
	KernelBooted time.Time `json:"kernel_booted,omitzero"`
	// RebootBy is when a full reboot is due because of the kernel's age; zero for never. The agent fills it in.
	RebootBy time.Time `json:"reboot_by,omitzero"`
	// CommandLine is the kernel command line (/proc/cmdline).
	CommandLine string `json:"command_line,omitempty"`
	// ISA is the x86-64 level of the processor, 1 to 4; 0 on other architectures.
	ISA int `json:"isa,omitempty"`
	// SELinuxOn is whether SELinux is enabled in the kernel. SELinux is the policy of the running root; if an earlier root
	// loaded another one, the agent puts that in its place.
	SELinuxOn bool          `json:"selinux_on,omitempty"`
	SELinux   rootfs.Policy `json:"selinux,omitzero"`
	// DiskUnits lists the units of encrypted or verified disks that a soft reboot stops.
	DiskUnits []string `json:"disk_units,omitempty"`
	// DiskLayers are what lies between the mounted file systems and their disks.
	DiskLayers []rootfs.DiskLayer `json:"mounted_disk_layers,omitempty"`
}

// Facts returns the facts of the machine. PID 1 is asked over its private socket, which also works while the bus is
// down.
func (m Machine) Facts(ctx context.Context) (Facts, error) {
	f := Facts{Architecture: runtime.GOARCH, SoftReboots: -1, Root: switcher.HostRoot}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return f, fmt.Errorf("cannot read the kernel release: %w", err)
	}
	f.KernelRelease, f.KernelVersion = unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Version[:])
	f.KernelBuildID = m.readBuildID()
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		f.BootID = strings.TrimSpace(string(id))
	}
	if !m.Live() {
		f.Systemd = rootfs.Dir(m.Root).Systemd()
		return f, nil
	}
	root, err := MountedRoot()
	if err != nil {
		return f, err
	}
	f.Root = root
	if f.Volatile, err = IsVolatile(); err != nil {
		return f, err
	}
	if err := f.askKernel(); err != nil {
		return f, err
	}
	f.DiskLayers = mountedLayers()
	f.SELinuxOn, f.SELinux = rootfs.Exists("/sys/fs/selinux/enforce"), rootfs.Dir("/").Policy()
	return f, f.askPID1(ctx)
}

// askKernel adds what the kernel reports about itself and the processor.
func (f *Facts) askKernel() error {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return fmt.Errorf("cannot read the time since boot: %w", err)
	}
	f.At = time.Now().UTC().Truncate(time.Second)
	f.KernelBooted = f.At.Add(-time.Duration(since.Nano())).Truncate(time.Second)
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	f.CommandLine = strings.TrimSpace(string(cmdline))
	if runtime.GOARCH == "amd64" {
		flags, err := Machine{Root: "/"}.cpuInfo("flags")
		if err != nil {
			return err
		}
		f.ISA = isaOfFlags(flags)
	}
	return nil
}

// ModulesFrom returns the identity of the root that the running kernel's modules were carried over from; "" when the
// booted root has its own. That root must stay on the disk as long as this kernel runs.
func ModulesFrom(release string) (string, error) {
	mounts, err := mountinfo.GetMounts(MountedAt("/usr/lib/modules/" + release))
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return "", nil
	}
	if id, ok := strings.CutPrefix(mounts[len(mounts)-1].Source, switcher.SourcePrefix); ok {
		return id, nil
	}
	return switcher.HostRoot, nil
}

// HaveModules reports whether the running root has the modules of the running kernel, its own or carried over.
func HaveModules(running rootfs.Kernel) bool {
	from, err := ModulesFrom(running.Release)
	return rootfs.Dir("/").ModulesAtHand(running, err == nil && from != "")
}

// OwnKernels returns the kernels that the running root itself has modules for, whatever is mounted over them.
func OwnKernels() ([]rootfs.Kernel, error) {
	root, err := mount.Clone("/", false)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return rootfs.Dir(root.Path()).Kernels(), nil
}

// MountedAt returns a filter for the mounts at path; the topmost is the last.
func MountedAt(path string) mountinfo.FilterFunc {
	return func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false }
}

// MountedRoot returns the identity of the running root.
func MountedRoot() (string, error) {
	m, err := LookAtRoot()
	return m.Root, err
}

// IsVolatile reports whether the running root has a throw-away copy of the state, or of a part of it.
func IsVolatile() (bool, error) {
	copies, err := VolatileMounts()
	return slices.ContainsFunc(copies, func(m *mountinfo.Info) bool {
		return !strings.HasPrefix(m.Mountpoint, "/run/") // not one that is being put together
	}), err
}

// VolatileMounts returns the throw-away copies that are mounted anywhere, in the order of mountinfo.
func VolatileMounts() ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(i.Source, switcher.VolatilePrefix), false
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	return mounts, nil
}

// askPID1 adds what PID 1 reports, if it is systemd.
func (f *Facts) askPID1(ctx context.Context) error {
	if !rootfs.Exists("/run/systemd/system") { // sd_booted(3)
		return nil
	}
	return pid1.WithConn(ctx, func(conn *dbus.Conn) error { return f.askManager(ctx, conn) })
}

func (f *Facts) askManager(ctx context.Context, conn *dbus.Conn) error {
	version, err := conn.GetManagerProperty("Version")
	if err != nil {
		return fmt.Errorf("cannot ask systemd for its version: %w", err)
	}
	f.Systemd = rootfs.LeadingNumber(strings.Trim(version, `"`))
	if count, err := conn.GetManagerProperty("SoftRebootsCount"); err == nil { // since 256
		// The answer may carry the D-Bus type in front: "@u 1".
		if n, err := strconv.Atoi(count[strings.LastIndexByte(count, ' ')+1:]); err == nil {
			f.SoftReboots = n
		}
	}
	if state, err := conn.GetManagerProperty("SystemState"); err == nil {
		f.State = strings.Trim(state, `"`)
	}
	failed, err := conn.ListUnitsFilteredContext(ctx, []string{"failed"})
	if err != nil {
		return fmt.Errorf("cannot list the failed units: %w", err)
	}
	for _, u := range failed {
		f.Failed = append(f.Failed, u.Name)
	}
	f.DiskUnits, err = disksToDetach(ctx, conn)
	return err
}

// disksToDetach returns the units that a soft reboot would stop with the disk in use: those that conflict with
// umount.target. The unit of a disk that the initrd attached does not (x-initrd.attach in crypttab(5)).
func disksToDetach(ctx context.Context, conn *dbus.Conn) ([]string, error) {
	units, err := conn.ListUnitsByPatternsContext(ctx, []string{"active"},
		[]string{"systemd-cryptsetup@*.service", "systemd-veritysetup@*.service", "systemd-integritysetup@*.service"})
	if err != nil {
		return nil, fmt.Errorf("cannot list the units of disks: %w", err)
	}
	var detached []string
	for _, u := range units {
		conflicts, err := conn.GetUnitPropertyContext(ctx, u.Name, "Conflicts")
		if err != nil {
			return nil, fmt.Errorf("cannot ask systemd about %s: %w", u.Name, err)
		}
		if names, ok := conflicts.Value.Value().([]string); ok && slices.Contains(names, "umount.target") {
			detached = append(detached, u.Name)
		}
	}
	slices.Sort(detached)
	return detached, nil
}

// Mounted is what is mounted at /: the root's identity, and the id of the mount, which changes with every switch, also
// from a root into itself.
type Mounted struct {
	Root  string
	Mount int
}

// LookAtRoot returns what is mounted at /. The identity is in the source of the topmost mount. Both are of one look:
// the guard would take a root with the mount of another for a switch that is none of its own.
func LookAtRoot() (Mounted, error) {
	mounts, err := mountinfo.GetMounts(MountedAt("/"))
	if err != nil {
		return Mounted{}, fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return Mounted{}, errors.New("cannot find the mount at /")
	}
	top := mounts[len(mounts)-1]
	if id, ok := strings.CutPrefix(top.Source, switcher.SourcePrefix); ok {
		return Mounted{id, top.ID}, nil
	}
	return Mounted{switcher.HostRoot, top.ID}, nil
}

// parseModules returns the names of the modules in the text of /proc/modules.
func parseModules(text string) []string {
	var loaded []string
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, " "); ok {
			loaded = append(loaded, name)
		}
	}
	return loaded
}

// Machine is the host as seen below a directory: "/" for the running host, or another tree.
type Machine struct {
	Root string
}

// Live reports whether this is the running host.
func (m Machine) Live() bool { return filepath.Clean(m.Root) == "/" }

// Path returns where an absolute path of the machine is in this process.
func (m Machine) Path(p string) string { return filepath.Join(m.Root, p) }
