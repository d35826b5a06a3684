package switcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
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
}

// Facts reads the running host. PID 1 is asked over its private socket, so it also works when the bus is down.
func (m Machine) Facts(ctx context.Context) (Facts, error) {
	f := Facts{Architecture: runtime.GOARCH, SoftReboots: -1, Root: HostRoot}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return f, fmt.Errorf("cannot read the kernel's name: %w", err)
	}
	f.KernelRelease, f.KernelVersion = unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Version[:])
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		f.BootID = strings.TrimSpace(string(id))
	}
	if !m.Live() {
		f.Systemd = m.installedSystemd()
		return f, nil
	}
	root, err := MountedRoot()
	if err != nil {
		return f, err
	}
	f.Root = root
	return f, f.askPID1(ctx)
}

// installedSystemd finds the version of systemd in a tree by the name of its library, 0 when there is none.
func (m Machine) installedSystemd() int {
	newest := 0
	for _, dir := range []string{"/usr/lib", "/usr/lib64", "/usr/lib/*-linux-*"} {
		found, _ := filepath.Glob(m.Path(dir + "/systemd/libsystemd-shared-*.so")) // the pattern is a good one
		for _, path := range found {
			newest = max(newest, leadingNumber(strings.TrimPrefix(filepath.Base(path), "libsystemd-shared-")))
		}
	}
	return newest
}

// ModulesFrom returns the root that the running kernel's modules are carried over from, "" when the booted root has
// them itself. That root must stay on the disk for as long as this kernel runs.
func ModulesFrom(release string) (string, error) {
	mounts, err := mountinfo.GetMounts(mountedAt("/usr/lib/modules/" + release))
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return "", nil
	}
	id, _ := strings.CutPrefix(mounts[len(mounts)-1].Source, SourcePrefix)
	return id, nil
}

// mountedAt passes every mount at path, the topmost last.
func mountedAt(path string) mountinfo.FilterFunc {
	return func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false }
}

// MountedRoot reads the identity of the root that runs from the source text of the last mount at /.
func MountedRoot() (string, error) {
	mounts, err := mountinfo.GetMounts(mountedAt("/"))
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return "", errors.New("cannot find the mount at /")
	}
	if id, ok := strings.CutPrefix(mounts[len(mounts)-1].Source, SourcePrefix); ok {
		return id, nil
	}
	return HostRoot, nil
}

func (f *Facts) askPID1(ctx context.Context) error {
	if !exists("/run/systemd/system") { // sd_booted(3)
		return nil
	}
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("cannot talk to systemd: %w", err)
	}
	defer conn.Close()
	version, err := conn.GetManagerProperty("Version")
	if err != nil {
		return fmt.Errorf("cannot ask systemd for its version: %w", err)
	}
	f.Systemd = leadingNumber(strings.Trim(version, `"`))
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
	return nil
}

// Uptime is the time since the kernel booted. Unlike the clock it runs on through a soft reboot, whatever the new root
// makes of the time.
func Uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// leadingNumber reads the number that a version such as "257.13-1~deb13u1" begins with; 0 when there is none.
func leadingNumber(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		version = version[:end]
	}
	n, _ := strconv.Atoi(version)
	return n
}
