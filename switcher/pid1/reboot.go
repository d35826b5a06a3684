package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/cgroups"
)

// ErrInhibited means that somebody holds an inhibitor lock against shutdown (systemd-inhibit(1)).
var ErrInhibited = errors.New("an inhibitor lock blocks the switch")

// ArmUnit is the unit that arms the new root when it is stopped: after every service, while file systems are mounted.
const ArmUnit = "updatectl-arm.service"

// GuardUnit is the unit that watches a switch from outside both roots.
const GuardUnit = "updatectl-guard.service"

// ArrivedUnit is the unit that tells others how a switch ended.
const ArrivedUnit = "updatectl-arrived.service"

// ApplyUnit is the unit that applies automatically. It also confirms a root that is not confirmed yet.
const ApplyUnit = "updatectl-apply.service"

// ConfirmUnit is the unit that proves a switch, checks the root and marks it good.
const ConfirmUnit = "updatectl-confirm.service"

// ErrNoUnit means that the agent's units are not installed in the running root.
var ErrNoUnit = errors.New("the units of updatectl are not installed")

// ErrJob means that a job of one of the agent's units failed.
var ErrJob = errors.New("its job failed")

// The flags of logind's RebootWithFlags (org.freedesktop.login1(5)).
const (
	logindCheckInhibitors = 0x01 // for root, too
	logindSoftReboot      = 0x04
	// 0x08, a soft reboot if a next root is set up, is never used: a full reboot must be a full one.
)

// The services at the end of a shutdown. The start job of one shows which kind of shutdown is under way.
const (
	softRebootService = "systemd-soft-reboot.service"
	rebootService     = "systemd-reboot.service"
)

// SoftReboot requests a soft reboot and returns once it is queued. It asks logind, which respects inhibitor locks and
// announces the reboot, or PID 1 where there is no logind, as in small containers. The error is an ErrInhibited when an
// inhibitor lock blocks it.
func (s System) SoftReboot(ctx context.Context) error {
	return askForReboot(ctx, logindSoftReboot, "soft-reboot.target", softRebootService)
}

// FullReboot requests a full reboot, as [System.SoftReboot] requests a soft one. The caller must disarm first: while a
// root is armed, systemd turns every reboot into a soft reboot.
func (s System) FullReboot(ctx context.Context) error {
	return askForReboot(ctx, 0, "reboot.target", rebootService)
}

// askForReboot requests a reboot from logind with these flags, or without logind from PID 1 by its target. A start job
// of service shows that the reboot is queued.
func askForReboot(ctx context.Context, flags uint64, target, service string) error {
	err := askLogind(ctx, answerLimit, flags)
	switch {
	case errors.Is(err, errNoLogind):
		return startTarget(ctx, target)
	case answerLost(err):
		// The shutdown may stop the bus before the answer is sent. PID 1 knows.
		if queued, queueErr := shutdownQueued(ctx, service); queueErr == nil && queued {
			return nil
		}
	}
	return err
}

// answerLost reports whether a call may have been executed although its answer was lost: the connection broke, or the
// bus reports that the called service is gone.
func answerLost(err error) bool {
	var answer godbus.Error
	if errors.As(err, &answer) {
		return answer.Name == "org.freedesktop.DBus.Error.NoReply"
	}
	return err != nil && !errors.Is(err, ErrInhibited)
}

var errNoLogind = errors.New("logind does not run")

// askLogind requests a reboot from logind. The error is errNoLogind where it does not run, ErrInhibited when a lock
// blocks it, and ErrUnresponsive when the bus or logind does not answer.
func askLogind(ctx context.Context, limit time.Duration, flags uint64) error {
	err := limited(ctx, limit, func(ctx context.Context, _ func()) error {
		bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
		switch {
		case errors.Is(err, unix.EAGAIN), err != nil && ctx.Err() != nil: // the bus is there
			return markUnresponsive(err)
		case err != nil:
			return fmt.Errorf("%w: %w", errNoLogind, err)
		}
		defer bus.Close()
		return callLogind(ctx, bus, flags)
	})
	if errors.Is(err, ErrUnresponsive) {
		err = fmt.Errorf("cannot ask logind for a reboot: %w", err)
	}
	return err
}

// callLogind is askLogind on a connection to the bus.
func callLogind(ctx context.Context, bus *godbus.Conn, flags uint64) error {
	login1 := bus.Object("org.freedesktop.login1", "/org/freedesktop/login1")
	flags |= logindCheckInhibitors
	err := login1.CallWithContext(ctx, "org.freedesktop.login1.Manager.RebootWithFlags", 0, flags).Err
	var answer godbus.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.Name {
	case "org.freedesktop.login1.BlockedByInhibitorLock":
		holders, err := WhoInhibits(ctx, login1)
		if err != nil {
			holders = "its holder is not known"
		}
		return fmt.Errorf("%w: %s", ErrInhibited, holders)
	case "org.freedesktop.DBus.Error.AccessDenied": // what systemd 257 answers root when a lock blocks it
		if holders, err := WhoInhibits(ctx, login1); err != nil {
			return fmt.Errorf("%w: its holder is not known", ErrInhibited)
		} else if holders != "" {
			return fmt.Errorf("%w: %s", ErrInhibited, holders)
		}
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitMasked":
		return fmt.Errorf("%w: %w", errNoLogind, err)
	}
	return fmt.Errorf("cannot ask logind for a reboot: %w", err)
}

// WhoInhibits returns the holders of the locks that block a shutdown, in words for the operator; "" when there are
// none. login1 is the manager of logind.
func WhoInhibits(ctx context.Context, login1 godbus.BusObject) (string, error) {
	var locks []struct {
		What, Who, Why, Mode string
		UID, PID             uint32
	}
	if err := login1.CallWithContext(ctx, "org.freedesktop.login1.Manager.ListInhibitors", 0).Store(&locks); err != nil {
		return "", fmt.Errorf("cannot ask logind for inhibitor locks: %w", err)
	}
	var holders []string
	for _, l := range locks {
		if strings.Contains(l.What, "shutdown") && strings.HasPrefix(l.Mode, "block") {
			holders = append(holders, fmt.Sprintf("%s (process %d): %s", l.Who, l.PID, l.Why))
		}
	}
	return strings.Join(holders, "; "), nil
}

// SoftRebootNow requests a soft reboot from PID 1 instead of logind: no inhibitor lock may block the rollback from an
// unhealthy root.
func (s System) SoftRebootNow(ctx context.Context) error {
	return startTarget(ctx, "soft-reboot.target")
}

// FullRebootNow requests a full reboot in the same way.
func (s System) FullRebootNow(ctx context.Context) error { return startTarget(ctx, "reboot.target") }

// startTarget starts the target of a shutdown, irreversibly, as systemctl does.
func startTarget(ctx context.Context, target string) error {
	return WithConn(ctx, func(conn *dbus.Conn) error {
		_, err := conn.StartUnitContext(ctx, target, "replace-irreversibly", nil)
		if err != nil {
			return fmt.Errorf("cannot start %s: %w", target, err)
		}
		return nil
	})
}

// HoldArmUnit starts the arming unit, so that the next shutdown stops it.
func (s System) HoldArmUnit(ctx context.Context) error {
	return runJob(ctx, "start", ArmUnit, "replace")
}

// ReleaseArmUnit stops the arming unit outside a shutdown, which arms nothing.
func (s System) ReleaseArmUnit(ctx context.Context) error {
	return runJob(ctx, "stop", ArmUnit, "replace")
}

// StartGuard starts the guard's unit, or restarts it if it runs. It ignores the order of units, because after a full
// reboot the guard must run before basic.target, from where the host switches to an image.
func (s System) StartGuard(ctx context.Context) error {
	return runJob(ctx, "restart", GuardUnit, "ignore-dependencies")
}

// runJob is [RunJob] for one of the agent's units. The error is an ErrNoUnit, an ErrJob, an ErrUnresponsive or that of
// the context.
func runJob(ctx context.Context, verb, unit, mode string) error {
	result, err := RunJob(ctx, verb, unit, mode)
	var answer godbus.Error
	switch {
	case errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.NoSuchUnit":
		err = ErrNoUnit
	case err == nil && result != "done":
		err = fmt.Errorf("%w: %q", ErrJob, result)
	case err == nil:
		return nil
	}
	return fmt.Errorf("cannot %s %s: %w", verb, unit, err)
}

// SoftRebootQueued reports whether a soft reboot is under way. The arming unit asks, because every kind of shutdown
// stops it.
func (s System) SoftRebootQueued(ctx context.Context) (bool, error) {
	return shutdownQueued(ctx, softRebootService)
}

// UnitActive reports whether a unit is active.
func (s System) UnitActive(ctx context.Context, unit string) (bool, error) {
	state, err := unitState(ctx, unit)
	return state == "active", err
}

// unitState returns the ActiveState of a unit.
func unitState(ctx context.Context, unit string) (string, error) {
	active := ""
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		state, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err != nil {
			return fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
		}
		active, _ = state.Value.Value().(string)
		return nil
	})
	return active, err
}

// EndConfirm stops the unit that checks the running root, and reports whether it was running.
func (s System) EndConfirm(ctx context.Context) (bool, error) {
	state, err := unitState(ctx, ConfirmUnit)
	if err != nil || state != "activating" {
		return false, err
	}
	return true, runJob(ctx, "stop", ConfirmUnit, "replace")
}

// BeginConfirm starts the unit that checks the running root, and does not wait for its end. A unit that ended before
// starts again.
func (s System) BeginConfirm(ctx context.Context) error {
	verb, err := startConfirm(ctx)
	if err != nil {
		return err
	}
	return WithConn(ctx, func(conn *dbus.Conn) error {
		call := conn.StartUnitContext
		if verb == "restart" {
			call = conn.RestartUnitContext
		}
		if _, err := call(ctx, ConfirmUnit, "replace", nil); err != nil {
			return fmt.Errorf("cannot start %s: %w", ConfirmUnit, err)
		}
		return nil
	})
}

// AwaitConfirm starts the unit that checks the running root, or joins it when it is running, and returns when it has
// ended. The error is an ErrNoUnit when there is no such unit or it is masked, an ErrJob when it failed, or that of the
// context, which leaves the unit running.
func (s System) AwaitConfirm(ctx context.Context) error {
	verb, err := startConfirm(ctx)
	if err == nil {
		err = runJob(ctx, verb, ConfirmUnit, "replace")
	}
	var answer godbus.Error
	if errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.UnitMasked" {
		return fmt.Errorf("cannot start %s: %w", ConfirmUnit, ErrNoUnit)
	}
	return err
}

// startConfirm returns what makes the unit run now: a start does nothing to one that has ended and stays active.
func startConfirm(ctx context.Context) (verb string, err error) {
	state, err := unitState(ctx, ConfirmUnit)
	if state == "active" {
		return "restart", err
	}
	return "start", err
}

// IsUnit reports whether this process belongs to a unit of the system: whoever runs a command from a shell or another
// service is in another cgroup.
func IsUnit(unit string) bool {
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && inUnit(string(cgroup), unit)
}

// inUnit reports whether the text of a /proc/PID/cgroup names a unit. A unit may have cgroups of its own below it, and
// a container that has no cgroup namespace sees the unit of its engine above all of its own.
func inUnit(cgroup, unit string) bool {
	for line := range strings.Lines(cgroup) {
		if strings.Contains(strings.TrimSpace(line)+"/", "/"+unit+"/") {
			return true
		}
	}
	return false
}

// Unit returns the unit of the system that this process belongs to, "" when there is none. A command that a person runs
// in a shell belongs to a scope, and what another service runs belongs to that service.
func Unit() string {
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return cgroups.UnitIn(string(cgroup))
}

// shutdownQueued reports whether one of these services has a start job.
func shutdownQueued(ctx context.Context, services ...string) (bool, error) {
	queued := false
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		jobs, err := conn.ListJobsContext(ctx)
		if err != nil {
			return fmt.Errorf("cannot list systemd's jobs: %w", err)
		}
		for _, j := range jobs {
			if slices.Contains(services, j.Unit) && j.JobType == "start" {
				queued = true
			}
		}
		return nil
	})
	return queued, err
}

// ForgetGone clears the failed state of units that the running root does not have, and of transient ones that failed
// before it started, such as the scopes of containers: systemd keeps it from the root that was left, and it says
// nothing about this one.
func (s System) ForgetGone(ctx context.Context) error {
	return WithConn(ctx, func(conn *dbus.Conn) error {
		failed, err := conn.ListUnitsFilteredContext(ctx, []string{"failed"})
		if err != nil {
			return fmt.Errorf("cannot list the failed units: %w", err)
		}
		text, _ := conn.GetManagerProperty("UserspaceTimestampMonotonic") // such as "@t 90000000"
		// Without an answer it is 0, and nothing transient is forgotten.
		started, _ := strconv.ParseUint(strings.TrimPrefix(text, "@t "), 10, 64)
		for _, u := range failed {
			if u.LoadState != "not-found" {
				properties, err := conn.GetAllPropertiesContext(ctx, u.Name)
				if err != nil || !failedBefore(properties, started) {
					continue
				}
			}
			if err := conn.ResetFailedUnitContext(ctx, u.Name); err != nil {
				return fmt.Errorf("cannot reset the failed state of %s: %w", u.Name, err)
			}
		}
		return nil
	})
}

// failedBefore reports whether a failed unit is transient and failed before a time in microseconds since the kernel
// booted, by its properties.
func failedBefore(properties map[string]any, started uint64) bool {
	transient, _ := properties["Transient"].(bool)
	changed, _ := properties["StateChangeTimestampMonotonic"].(uint64)
	return transient && changed < started
}

// ShuttingDown reports whether a reboot of any kind is under way: it is queued, or logind has announced it and waits
// for delay inhibitors.
func (s System) ShuttingDown(ctx context.Context) (bool, error) {
	queued, err := shutdownQueued(ctx, softRebootService, rebootService)
	if err != nil || queued {
		return queued, err
	}
	if announced(ctx, announceLimit) {
		return true, nil
	}
	// A reboot that logind had announced may have been queued between the two questions.
	return shutdownQueued(ctx, softRebootService, rebootService)
}

// announceLimit is how long logind may take to say whether it has announced a reboot: the default of D-Bus for a call.
// Whoever asks has only a minute for all that it does.
const announceLimit = 25 * time.Second

// announced reports whether logind has announced a reboot. Without a bus, logind or an answer there is no announcement.
func announced(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit) // which closes the connection
	defer cancel()
	bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		return false
	}
	defer bus.Close()
	login1 := bus.Object("org.freedesktop.login1", "/org/freedesktop/login1")
	preparing, err := login1.GetProperty("org.freedesktop.login1.Manager.PreparingForShutdown")
	if err != nil {
		return false
	}
	is, _ := preparing.Value().(bool)
	return is
}
