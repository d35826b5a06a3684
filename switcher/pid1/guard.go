package pid1

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

// Manager is the state of PID 1.
type Manager struct {
	// State is the state of the system in systemd's words: starting, running, degraded, stopping …
	State string
	// SoftReboot is whether a soft reboot is queued.
	SoftReboot bool
	// Stopping lists the units that are being stopped: what a shutdown waits for.
	Stopping []string
	// Starting lists the units that are being started.
	Starting []string
}

// Up reports whether every unit has been started. The state alone does not say so: systemd 254 and 255 stay in running
// while a soft reboot starts all units again.
func (m Manager) Up() bool {
	return (m.State == "running" || m.State == "degraded") && len(m.Starting) == 0
}

// AskManager returns the state of PID 1, which is asked over its private socket and needs no bus. The error is
// context.DeadlineExceeded when it does not answer within askPatience.
func (s System) AskManager(ctx context.Context) (Manager, error) {
	return bounded(ctx, askPatience, func(ctx context.Context) (Manager, error) {
		var answer Manager
		err := WithConn(ctx, func(conn *dbus.Conn) error {
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

// bounded returns the answer of a call, or context.DeadlineExceeded if it takes longer than patience: a PID 1 that
// hangs accepts a connection and never answers. If the caller gives up, it returns the error of the caller's context.
func bounded[T any](caller context.Context, patience time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(caller, patience)
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
		if err := caller.Err(); err != nil {
			return none, fmt.Errorf("cannot wait for an answer from systemd: %w", err)
		}
		return none, fmt.Errorf("cannot get an answer from systemd within %v: %w", patience, ctx.Err())
	}
}

// startable are the types of units that are started again after a cancelled shutdown. Others appear automatically, as
// devices do, or belong to a session that has ended.
var startable = []string{".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap", ".target"}

// ActiveUnits returns the active units that could be started again after a cancelled shutdown. The agent's own are left
// out.
func (s System) ActiveUnits(ctx context.Context) ([]string, error) {
	var names []string
	err := WithConn(ctx, func(conn *dbus.Conn) error {
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

// CancelShutdown cancels a queued shutdown and starts the units in before again. A unit that is still stopping is not
// started, because that would wait until it has stopped; left names those units.
func (s System) CancelShutdown(ctx context.Context, before []string) (left []string, err error) {
	// The jobs of a shutdown are irreversible: systemd accepts no other job before they are cancelled.
	if err := s.clearJobs(ctx); err != nil {
		return nil, err
	}
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsContext(ctx)
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			if u.ActiveState == "deactivating" {
				left = append(left, u.Name)
			}
		}
		// First what a boot starts, then what was started since.
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

// clearJobs cancels every job. systemd does so at once, but on the private socket its answer is lost if there were any
// jobs (seen with 257). So what counts is that the shutdown is gone.
func (s System) clearJobs(ctx context.Context) error {
	const patience = 2 * time.Second
	callCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	callErr := callManager(callCtx, "ClearJobs")
	now, err := s.AskManager(ctx)
	if err == nil && now.SoftReboot {
		err = errors.Join(errors.New("cannot cancel the shutdown: systemd continues it"), callErr)
	}
	return err
}

// askPatience is how long one question to PID 1 may take.
const askPatience = 10 * time.Second

// cancelStarts cancels the start jobs of units.
func cancelStarts(ctx context.Context, conn *dbus.Conn, units []string) error {
	jobs, err := conn.ListJobsContext(ctx)
	if err != nil {
		return fmt.Errorf("cannot list systemd's jobs: %w", err)
	}
	for _, j := range jobs {
		if j.JobType == "start" && slices.Contains(units, j.Unit) {
			// Its answer may be lost, too.
			callCtx, cancel := context.WithTimeout(ctx, time.Second)
			err := callManager(callCtx, "CancelJob", uint32(j.Id))
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
	}
	return nil
}

// KillUnits sends SIGKILL to every process of these units.
func (s System) KillUnits(ctx context.Context, units []string) error {
	return WithConn(ctx, func(conn *dbus.Conn) error {
		var errs []error
		for _, name := range units {
			if err := conn.KillUnitWithTarget(ctx, name, dbus.All, int32(unix.SIGKILL)); err != nil {
				errs = append(errs, fmt.Errorf("cannot kill %s: %w", name, err))
			}
		}
		return errors.Join(errs...)
	})
}

// SoftRebootHard makes PID 1 switch at once: it kills every process and waits for no unit to stop. Use it only with an
// armed root, and only when the orderly shutdown does not end: PID 1 hangs if it cannot switch.
func (s System) SoftRebootHard(ctx context.Context) error { return callManager(ctx, "SoftReboot", "") }

// ForgetFailures clears the failed state and the start counter of all units. systemd keeps counting across a soft
// reboot, and does not start a unit that was started too often (StartLimitBurst= in systemd.unit(5)).
func (s System) ForgetFailures(ctx context.Context) error { return callManager(ctx, "ResetFailed") }
