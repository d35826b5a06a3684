// Package facts reads what runs on this machine: the root, the kernel, the processor, and what earlier roots left in the
// running kernel. It changes nothing.
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

// Facts are what the agent knows of the running host before it decides anything.
type Facts struct {
	// Root is the identity of the root mounted at /: HostRoot or an image root's identity.
	Root string `json:"root"`
	// BootID changes with the kernel, not with a soft reboot (/proc/sys/kernel/random/boot_id).
	BootID string `json:"boot_id"`
	// KernelRelease and KernelVersion are uname -r and uname -v.
	KernelRelease string `json:"kernel_release"`
	KernelVersion string `json:"kernel_version"`
	// KernelBuildID is the GNU build id of the running kernel in hexadecimal digits, "" when it has none.
	KernelBuildID string `json:"kernel_build_id,omitempty"`
	// Architecture is GOARCH.
	Architecture string `json:"architecture"`
	// Systemd is the major version of PID 1, 0 when PID 1 is not systemd. In another tree it is the installed one.
	Systemd int `json:"systemd"`
	// SoftReboots counts soft reboots since the kernel booted; -1 when PID 1 does not say (before version 256).
	SoftReboots int `json:"soft_reboots"`
	// State is systemd's own word for the system: running, degraded, starting, stopping …
	State string `json:"state,omitempty"`
	// Failed lists the failed units.
	Failed []string `json:"failed_units,omitempty"`

	// At is when the facts were read, KernelBooted when the kernel was booted.
	At           time.Time `json:"at,omitzero"`
	KernelBooted time.Time `json:"kernel_booted,omitzero"`
	// RebootBy is when the kernel is too old to go on with; zero for never. It is the agent's to fill.
	RebootBy time.Time `json:"reboot_by,omitzero"`
	// CommandLine is the kernel's (/proc/cmdline).
	CommandLine string `json:"command_line,omitempty"`
	// ISA is the x86-64 level of the processor: 1 to 4, 0 when it is another architecture.
	ISA int `json:"isa,omitempty"`
	// SELinuxOn tells that SELinux is on in the kernel; SELinux is the policy of the running root, which the agent replaces by
	// the one that is loaded where an earlier root loaded it.
	SELinuxOn bool          `json:"selinux_on,omitempty"`
	SELinux   rootfs.Policy `json:"selinux,omitzero"`
	// DiskUnits lists the units of encrypted or verified disks that a shutdown of userspace stops.
	DiskUnits []string `json:"disk_units,omitempty"`
}

// Facts reads the running host. PID 1 is asked over its private socket, so it also works when the bus is down.
func (m Machine) Facts(ctx context.Context) (Facts, error) {
	f := Facts{Architecture: runtime.GOARCH, SoftReboots: -1, Root: switcher.HostRoot}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return f, fmt.Errorf("cannot read the kernel's name: %w", err)
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
	if err := f.askKernel(); err != nil {
		return f, err
	}
	f.SELinuxOn, f.SELinux = rootfs.Exists("/sys/fs/selinux/enforce"), rootfs.Dir("/").Policy()
	return f, f.askPID1(ctx)
}

// askKernel reads what the kernel tells of itself and of the processor.
func (f *Facts) askKernel() error {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return fmt.Errorf("cannot read how long the kernel runs: %w", err)
	}
	f.At = time.Now().UTC().Truncate(time.Second)
	f.KernelBooted = f.At.Add(-time.Duration(since.Nano())).Truncate(time.Second)
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	f.CommandLine = strings.TrimSpace(string(cmdline))
	if runtime.GOARCH == "amd64" {
		flags, err := Machine{Root: "/"}.cpu("flags")
		if err != nil {
			return err
		}
		f.ISA = isaOfFlags(flags)
	}
	return nil
}

// ModulesFrom returns the root that the running kernel's modules are carried over from, HostRoot for the mutable host, ""
// when the booted root has them itself. That root must stay on the disk for as long as this kernel runs.
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

// HaveModules tells whether the modules of the running kernel are at hand in the running root.
func HaveModules(running rootfs.Kernel) bool {
	from, err := ModulesFrom(running.Release)
	return rootfs.Dir("/").ModulesAtHand(running, err == nil && from != "")
}

// OwnKernels lists the kernels that the running root has modules for, also below those that are mounted over them.
func OwnKernels() ([]rootfs.Kernel, error) {
	root, err := mount.Clone("/", false)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return rootfs.Dir(root.Path()).Kernels(), nil
}

// MountedAt passes every mount at path, the topmost last.
func MountedAt(path string) mountinfo.FilterFunc {
	return func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false }
}

// MountedRoot reads the identity of the root that runs from the source text of the last mount at /.
func MountedRoot() (string, error) {
	mounts, err := mountinfo.GetMounts(MountedAt("/"))
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return "", errors.New("cannot find the mount at /")
	}
	if id, ok := strings.CutPrefix(mounts[len(mounts)-1].Source, switcher.SourcePrefix); ok {
		return id, nil
	}
	return switcher.HostRoot, nil
}

func (f *Facts) askPID1(ctx context.Context) error {
	if !rootfs.Exists("/run/systemd/system") { // sd_booted(3)
		return nil
	}
	return pid1.With(ctx, func(conn *dbus.Conn) error { return f.askManager(ctx, conn) })
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

// disksToDetach lists the units that a soft reboot would stop with the disk in use. What the initrd attached is left to
// it: without that, these units conflict with umount.target (crypttab(5), x-initrd.attach).
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

// Mounted is what is mounted at /: the root's identity, and the number of the mount, which a switch changes even from a
// root into itself.
type Mounted struct {
	Root  string
	Mount int
}

// LookAtRoot reads what is mounted at /.
func LookAtRoot() (Mounted, error) {
	root, err := MountedRoot()
	if err != nil {
		return Mounted{}, err
	}
	mounts, err := mountinfo.GetMounts(MountedAt("/"))
	if err != nil || len(mounts) == 0 {
		return Mounted{}, fmt.Errorf("cannot read the mount at /: %w", err)
	}
	return Mounted{root, mounts[len(mounts)-1].ID}, nil
}

// parseModules lists the loaded modules in /proc/modules.
func parseModules(text string) []string {
	var loaded []string
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, " "); ok {
			loaded = append(loaded, name)
		}
	}
	return loaded
}

// Machine is the host as seen below a directory: "/" for the running one, or another tree.
type Machine struct {
	Root string
}

// Live tells whether this is the running host.
func (m Machine) Live() bool { return filepath.Clean(m.Root) == "/" }

// Path is a path of the machine, given as an absolute path inside it.
func (m Machine) Path(p string) string { return filepath.Join(m.Root, p) }
