package pid1

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// ErrInhibited says that somebody holds an inhibitor lock against shutdown (systemd-inhibit(1)).
var ErrInhibited = errors.New("an inhibitor lock blocks the switch")

// ArmUnit is the unit whose stop arms the new root: it is stopped after every service, with the file systems mounted.
const ArmUnit = "updatectl-arm.service"

// GuardUnit is the unit that watches over a switch from outside of both roots.
const GuardUnit = "updatectl-guard.service"

// ApplyUnit applies by itself; it confirms, too, when it finds a root that is not confirmed.
const ApplyUnit = "updatectl.service"

// ConfirmUnit is the unit that proves a switch and marks the root good.
const ConfirmUnit = "updatectl-confirm.service"

// ErrNoUnit says that the agent's own units are not installed in the running root.
var ErrNoUnit = errors.New("the units of updatectl are not installed")

// ErrJob says that a job of one of the agent's own units did not end as it should.
var ErrJob = errors.New("its job did not end well")

// logind's flags of RebootWithFlags (org.freedesktop.login1(5)).
const (
	logindCheckInhibitors = 0x01 // for root, too
	logindSoftReboot      = 0x04
	// 0x08, a soft reboot if a next root is set up, is never set: who asks for a full reboot gets one.
)

// The services at the end of a shutdown; a job to start one tells which kind is under way.
const (
	softRebootService = "systemd-soft-reboot.service"
	rebootService     = "systemd-reboot.service"
)

// SoftReboot asks for a soft reboot and returns once it is queued. logind is asked first, because it honours
// inhibitors and tells everybody; PID 1 where there is no logind, as in small containers.
func (s System) SoftReboot(ctx context.Context) error {
	return askForReboot(ctx, logindSoftReboot, "soft-reboot.target", softRebootService)
}

// FullReboot asks for a full reboot, as [Machine.SoftReboot] asks for a soft one. The caller disarms first: systemd turns
// a reboot into a soft one while a root is armed.
func (s System) FullReboot(ctx context.Context) error {
	return askForReboot(ctx, 0, "reboot.target", rebootService)
}

// askForReboot asks logind for a reboot with these flags, or PID 1 for its target. The last service tells whether it is queued.
func askForReboot(ctx context.Context, flags uint64, target, service string) error {
	err := askLogind(ctx, flags)
	switch {
	case errors.Is(err, errNoLogind):
		return startTarget(ctx, target)
	case answerLost(err):
		// The bus may go down with what was asked for before the answer is out. PID 1 knows.
		if queued, qerr := shutdownQueued(ctx, service); qerr == nil && queued {
			return nil
		}
	}
	return err
}

// answerLost tells whether a call may have been heard and its answer has not: the connection broke, or the bus says that
// whoever was called went away.
func answerLost(err error) bool {
	var answer godbus.Error
	if errors.As(err, &answer) {
		return answer.Name == "org.freedesktop.DBus.Error.NoReply"
	}
	return err != nil && !errors.Is(err, ErrInhibited)
}

var errNoLogind = errors.New("logind does not run")

func askLogind(ctx context.Context, flags uint64) error {
	bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("%w: %w", errNoLogind, err)
	}
	defer bus.Close()
	login1 := bus.Object("org.freedesktop.login1", "/org/freedesktop/login1")
	err = login1.CallWithContext(ctx, "org.freedesktop.login1.Manager.RebootWithFlags", 0, logindCheckInhibitors|flags).Err
	var answer godbus.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.Name {
	case "org.freedesktop.login1.BlockedByInhibitorLock":
		return fmt.Errorf("%w: %s", ErrInhibited, whoInhibits(ctx, login1))
	case "org.freedesktop.DBus.Error.AccessDenied": // what systemd 257 says to root about the same thing
		if holders := whoInhibits(ctx, login1); holders != "" {
			return fmt.Errorf("%w: %s", ErrInhibited, holders)
		}
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitMasked":
		return fmt.Errorf("%w: %w", errNoLogind, err)
	}
	return fmt.Errorf("cannot ask logind for a reboot: %w", err)
}

// whoInhibits names the holders of blocking locks against shutdown, for the operator to talk to.
func whoInhibits(ctx context.Context, login1 godbus.BusObject) string {
	var locks []struct {
		What, Who, Why, Mode string
		UID, PID             uint32
	}
	if err := login1.CallWithContext(ctx, "org.freedesktop.login1.Manager.ListInhibitors", 0).Store(&locks); err != nil {
		return "its holder is not known"
	}
	var holders []string
	for _, l := range locks {
		if strings.Contains(l.What, "shutdown") && strings.HasPrefix(l.Mode, "block") {
			holders = append(holders, fmt.Sprintf("%s (process %d): %s", l.Who, l.PID, l.Why))
		}
	}
	return strings.Join(holders, "; ")
}

// SoftRebootNow asks PID 1 for a soft reboot, past logind: no inhibitor lock holds up the way back from a root that is
// no good.
func (s System) SoftRebootNow(ctx context.Context) error {
	return startTarget(ctx, "soft-reboot.target")
}

// FullRebootNow asks PID 1 for a full reboot in the same way.
func (s System) FullRebootNow(ctx context.Context) error { return startTarget(ctx, "reboot.target") }

func startTarget(ctx context.Context, target string) error {
	return With(ctx, func(conn *dbus.Conn) error {
		_, err := conn.StartUnitContext(ctx, target, "replace-irreversibly", nil)
		if err != nil {
			return fmt.Errorf("cannot start %s: %w", target, err)
		}
		return nil
	})
}

// HoldArmUnit starts the arming unit, so that its stop is part of the next shutdown.
func (s System) HoldArmUnit(ctx context.Context) error {
	return runJob(ctx, "start", ArmUnit, "replace")
}

// ReleaseArmUnit stops the arming unit outside a shutdown: nothing is armed then.
func (s System) ReleaseArmUnit(ctx context.Context) error {
	return runJob(ctx, "stop", ArmUnit, "replace")
}

// StartGuard starts the unit that watches over a switch, anew if an earlier one is still there. It has to be up before
// basic.target, too, where a boot of the kernel goes on to an image: hence without the order of units.
func (s System) StartGuard(ctx context.Context) error {
	return runJob(ctx, "restart", GuardUnit, "ignore-dependencies")
}

// runJob starts, stops or restarts one of the agent's own units and waits until that is done.
func runJob(ctx context.Context, verb, unit, mode string) error {
	return With(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		call := map[string]func(context.Context, string, string, chan<- string) (int, error){
			"start": conn.StartUnitContext, "stop": conn.StopUnitContext, "restart": conn.RestartUnitContext,
		}[verb]
		_, err := call(ctx, unit, mode, done)
		var answer godbus.Error
		if errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.NoSuchUnit" {
			return fmt.Errorf("cannot %s %s: %w", verb, unit, ErrNoUnit)
		}
		if err != nil {
			return fmt.Errorf("cannot %s %s: %w", verb, unit, err)
		}
		select {
		case result := <-done:
			if result != "done" {
				return fmt.Errorf("cannot %s %s: %w: %q", verb, unit, ErrJob, result)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("cannot %s %s: %w", verb, unit, ctx.Err())
		}
	})
}

// SoftRebootQueued tells whether systemd is on its way into a soft reboot. The arming unit asks, because it is stopped
// at every kind of shutdown.
func (s System) SoftRebootQueued(ctx context.Context) (bool, error) {
	return shutdownQueued(ctx, softRebootService)
}

// UnitActive tells whether a unit is active.
func (s System) UnitActive(ctx context.Context, unit string) (bool, error) {
	state, err := unitState(ctx, unit)
	return state == "active", err
}

// unitState is the ActiveState of a unit.
func unitState(ctx context.Context, unit string) (string, error) {
	active := ""
	err := With(ctx, func(conn *dbus.Conn) error {
		state, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err != nil {
			return fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
		}
		active, _ = state.Value.Value().(string)
		return nil
	})
	return active, err
}

// EndConfirm ends the unit that judges the running root, and tells whether it was at it.
func (s System) EndConfirm(ctx context.Context) (bool, error) {
	state, err := unitState(ctx, ConfirmUnit)
	if err != nil || state != "activating" {
		return false, err
	}
	return true, runJob(ctx, "stop", ConfirmUnit, "replace")
}

// BeginConfirm has the running root judged. It does not wait for the end of that.
func (s System) BeginConfirm(ctx context.Context) error {
	return With(ctx, func(conn *dbus.Conn) error {
		if _, err := conn.StartUnitContext(ctx, ConfirmUnit, "replace", nil); err != nil {
			return fmt.Errorf("cannot start %s: %w", ConfirmUnit, err)
		}
		return nil
	})
}

// shutdownQueued tells whether one of the services that end a shutdown is to be started.
func shutdownQueued(ctx context.Context, services ...string) (bool, error) {
	queued := false
	err := With(ctx, func(conn *dbus.Conn) error {
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

// ForgetGone clears the failures of units that the running root does not have: systemd takes them along from the root that
// was left, and they say nothing about this one.
func (s System) ForgetGone(ctx context.Context) error {
	return With(ctx, func(conn *dbus.Conn) error {
		failed, err := conn.ListUnitsFilteredContext(ctx, []string{"failed"})
		if err != nil {
			return fmt.Errorf("cannot list the failed units: %w", err)
		}
		for _, u := range failed {
			if u.LoadState != "not-found" {
				continue
			}
			if err := conn.ResetFailedUnitContext(ctx, u.Name); err != nil {
				return fmt.Errorf("cannot forget that %s failed: %w", u.Name, err)
			}
		}
		return nil
	})
}

// ShuttingDown tells whether a reboot of any kind is under way: it is queued, or logind
// has announced one and waits for those who asked for a moment (delay inhibitors).
func (s System) ShuttingDown(ctx context.Context) (bool, error) {
	queued, err := shutdownQueued(ctx, softRebootService, rebootService)
	if err != nil || queued {
		return queued, err
	}
	bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		return false, nil // no bus, no logind, no announcement
	}
	defer bus.Close()
	login1 := bus.Object("org.freedesktop.login1", "/org/freedesktop/login1")
	preparing, err := login1.GetProperty("org.freedesktop.login1.Manager.PreparingForShutdown")
	if err != nil {
		return false, nil
	}
	announced, _ := preparing.Value().(bool)
	return announced, nil
}
