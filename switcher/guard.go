package switcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Unpin runs this very program again from a sealed copy in memory, with the same arguments: a process that outlives its
// root must not hold a file of it. It returns only in the copy, or with an error.
func Unpin() error {
	const name = "updatectl"
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot find the agent's own binary: %w", err)
	}
	if strings.HasPrefix(self, "/memfd:"+name) {
		return nil
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where every one can be executed
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("cannot make a file in memory: %w", err)
	}
	copied := os.NewFile(uintptr(fd), name)
	defer copied.Close()
	if err := fill(copied); err != nil {
		return fmt.Errorf("cannot copy the agent into memory: %w", err)
	}
	if err := seal(fd); err != nil {
		return fmt.Errorf("cannot seal the copy in memory: %w", err)
	}
	err = unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), os.Args, os.Environ())
	return fmt.Errorf("cannot run the copy in memory: %w", err)
}

// seal keeps a file in memory from being changed. The kernel says EBUSY while a page of it is held by somebody else, and
// on a busy machine that can be the kernel itself, which lets go of pages in batches (fcntl(2), F_SEAL_WRITE).
func seal(fd int) error {
	const (
		seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		tries = 50
		pause = 100 * time.Millisecond // the kernel waits about as long by itself, each time
	)
	var err error
	for range tries {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

func fill(to *os.File) error {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.Copy(to, src)
	return err
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
	mounts, err := mountinfo.GetMounts(mountedAt("/"))
	if err != nil || len(mounts) == 0 {
		return Mounted{}, fmt.Errorf("cannot read the mount at /: %w", err)
	}
	return Mounted{root, mounts[len(mounts)-1].ID}, nil
}

// Manager is what PID 1 says of itself.
type Manager struct {
	// State is systemd's word for the system: starting, running, degraded, stopping …
	State string
	// SoftReboot tells that one is queued.
	SoftReboot bool
	// Stopping lists the units whose stop is under way: what a shutdown waits for.
	Stopping []string
	// Starting lists the units whose start is under way.
	Starting []string
}

// Up tells whether every unit is started. systemd 254 and 255 keep saying that they run while a soft reboot starts all
// units anew.
func (m Manager) Up() bool {
	return (m.State == "running" || m.State == "degraded") && len(m.Starting) == 0
}

// AskManager asks PID 1 over its private socket, which needs no bus. An answer that takes too long is none.
func (m Machine) AskManager(ctx context.Context) (Manager, error) {
	return bounded(ctx, askPatience, func(ctx context.Context) (Manager, error) {
		var answer Manager
		err := withPID1(ctx, func(conn *dbus.Conn) error {
			state, err := conn.GetManagerProperty("SystemState")
			if err != nil {
				return fmt.Errorf("cannot ask systemd for its state: %w", err)
			}
			answer.State = strings.Trim(state, `"`)
			jobs, err := conn.ListJobsContext(ctx)
			if err != nil {
				return fmt.Errorf("cannot list systemd's jobs: %w", err)
			}
			for _, j := range jobs {
				switch {
				case j.Unit == "systemd-soft-reboot.service" && j.JobType == "start":
					answer.SoftReboot = true
				case j.Status == "running" && j.JobType == "stop":
					answer.Stopping = append(answer.Stopping, j.Unit)
				case j.Status == "running" && j.JobType == "start":
					answer.Starting = append(answer.Starting, j.Unit)
				}
			}
			return nil
		})
		return answer, err
	})
}

// bounded gives up on a call that does not return in time; a PID 1 that hangs accepts a connection and never answers.
func bounded[T any](ctx context.Context, patience time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := call(ctx)
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("cannot get an answer from systemd within %v: %w", patience, ctx.Err())
	}
}

// startable are the kinds of units that are started again after a cancelled shutdown. Others come by themselves, as
// devices do, or belong to somebody who is gone.
var startable = []string{".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap", ".target"}

// ActiveUnits lists what runs and could be started again.
func (m Machine) ActiveUnits(ctx context.Context) ([]string, error) {
	var names []string
	err := withPID1(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active", "activating", "reloading"})
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			if slices.ContainsFunc(startable, func(kind string) bool { return strings.HasSuffix(u.Name, kind) }) &&
				!slices.Contains([]string{ArmUnit, GuardUnit, ApplyUnit}, u.Name) && !strings.HasPrefix(u.Name, "user@") {
				names = append(names, u.Name)
			}
		}
		return nil
	})
	return names, err
}

// CancelShutdown takes back a shutdown that is queued and starts again what ran before it. A unit that is still on its way
// down is left to it: a start would wait for its end. It returns the units that it left.
func (m Machine) CancelShutdown(ctx context.Context, before []string) (left []string, err error) {
	// The jobs of a shutdown are irreversible: no other job is let in beside them, they have to go first.
	if err := m.clearJobs(ctx); err != nil {
		return nil, err
	}
	err = withPID1(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsContext(ctx)
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			if u.ActiveState == "deactivating" {
				left = append(left, u.Name)
			}
		}
		// As at a boot, and then what was started since by other means.
		for _, name := range append([]string{"default.target"}, before...) {
			if slices.Contains(left, name) {
				continue
			}
			if _, err := conn.StartUnitContext(ctx, name, "replace", nil); err != nil && name == "default.target" {
				return fmt.Errorf("cannot start %s again: %w", name, err)
			}
		}
		return cancelStarts(ctx, conn, left)
	})
	return left, err
}

// clearJobs takes back every job. systemd does it at once, and its answer gets lost on the private socket when there were
// jobs (tried with 257): what counts is that the shutdown is gone.
func (m Machine) clearJobs(ctx context.Context) error {
	const patience = 2 * time.Second
	heard, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said := callManager(heard, "ClearJobs")
	now, err := m.AskManager(ctx)
	if err == nil && now.SoftReboot {
		err = errors.Join(errors.New("cannot take the shutdown back: systemd goes on with it"), said)
	}
	return err
}

// askPatience is how long one question to PID 1 may take.
const askPatience = 10 * time.Second

// cancelStarts takes back the start jobs of units.
func cancelStarts(ctx context.Context, conn *dbus.Conn, units []string) error {
	jobs, err := conn.ListJobsContext(ctx)
	if err != nil {
		return fmt.Errorf("cannot list systemd's jobs: %w", err)
	}
	for _, j := range jobs {
		if j.JobType == "start" && slices.Contains(units, j.Unit) {
			// Its answer gets lost, too.
			heard, cancel := context.WithTimeout(ctx, time.Second)
			err := callManager(heard, "CancelJob", uint32(j.Id))
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
	}
	return nil
}

// KillUnits sends SIGKILL to every process of units that do not stop.
func (m Machine) KillUnits(ctx context.Context, units []string) error {
	return withPID1(ctx, func(conn *dbus.Conn) error {
		var errs []error
		for _, name := range units {
			if err := conn.KillUnitWithTarget(ctx, name, dbus.All, int32(unix.SIGKILL)); err != nil {
				errs = append(errs, fmt.Errorf("cannot kill %s: %w", name, err))
			}
		}
		return errors.Join(errs...)
	})
}

// SoftRebootHard has PID 1 switch at once, past what still stops: every process is killed. Only into an armed root, and
// only when the ordinary way does not end: PID 1 hangs when it cannot switch.
func (m Machine) SoftRebootHard(ctx context.Context) error { return callManager(ctx, "SoftReboot", "") }

// ForgetFailures clears the failures of all units, and how often they were started: systemd counts over a soft reboot, and
// would not start a unit that was started too often (StartLimitBurst= in systemd.unit(5)).
func (m Machine) ForgetFailures(ctx context.Context) error { return callManager(ctx, "ResetFailed") }

// BootKernel boots the kernel without asking anybody: what PID 1 does not do any more, reboot(2) does. It waits for the
// disks, but not for ever.
func BootKernel() error {
	const patience = 30 * time.Second // a disk that has not written by then will not
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(patience):
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("cannot boot the kernel: %w", err)
	}
	return nil
}

// MakeWritable undoes a remount of the state: a root that is gone back to must be able to write to it.
func MakeWritable(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		return err
	}
	rw := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(unix.AT_FDCWD, path, 0, &rw)
	if err := unix.Statfs(path, &st); err == nil && st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	return errors.Join(err, unix.Mount("", path, "", unix.MS_REMOUNT, ""))
}

const panicFile = "/proc/sys/kernel/panic"

// RebootOnPanic has the kernel boot again when it panics, as it does when an init ends, unless the host has its own rule.
// The function that it returns takes that back.
func RebootOnPanic() (restore func()) { return rebootOnPanic(panicFile) }

func rebootOnPanic(file string) (restore func()) {
	const seconds = "10" // time to read it
	was, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(was)) != "0" || os.WriteFile(file, []byte(seconds), 0) != nil {
		return func() {}
	}
	return func() {
		// The new root may have set its own meanwhile.
		if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == seconds {
			_ = os.WriteFile(file, was, 0)
		}
	}
}
