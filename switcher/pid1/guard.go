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
func (s System) AskManager(ctx context.Context) (Manager, error) {
	return bounded(ctx, askPatience, func(ctx context.Context) (Manager, error) {
		var answer Manager
		err := With(ctx, func(conn *dbus.Conn) error {
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
func (s System) ActiveUnits(ctx context.Context) ([]string, error) {
	var names []string
	err := With(ctx, func(conn *dbus.Conn) error {
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
func (s System) CancelShutdown(ctx context.Context, before []string) (left []string, err error) {
	// The jobs of a shutdown are irreversible: no other job is let in beside them, they have to go first.
	if err := s.clearJobs(ctx); err != nil {
		return nil, err
	}
	err = With(ctx, func(conn *dbus.Conn) error {
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
func (s System) clearJobs(ctx context.Context) error {
	const patience = 2 * time.Second
	heard, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said := callManager(heard, "ClearJobs")
	now, err := s.AskManager(ctx)
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
func (s System) KillUnits(ctx context.Context, units []string) error {
	return With(ctx, func(conn *dbus.Conn) error {
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
func (s System) SoftRebootHard(ctx context.Context) error { return callManager(ctx, "SoftReboot", "") }

// ForgetFailures clears the failures of all units, and how often they were started: systemd counts over a soft reboot, and
// would not start a unit that was started too often (StartLimitBurst= in systemd.unit(5)).
func (s System) ForgetFailures(ctx context.Context) error { return callManager(ctx, "ResetFailed") }
