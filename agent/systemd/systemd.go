// Package systemd answers what PID 1 reports about units, and starts one. It is asked over its private socket, so it
// also answers while the bus is down.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/updatectl/updatectl/switcher/pid1"
)

// Manager is PID 1 as the health gate sees it; [PID1] is the real one.
type Manager struct {
	// Starting lists the units that are being started now.
	Starting func(context.Context) ([]string, error)
	// Units lists the units that are loaded.
	Units func(context.Context) ([]Unit, error)
	// Restarts returns how often systemd has restarted each of these services automatically. A service that is gone by now
	// is left out.
	Restarts func(ctx context.Context, services []string) (map[string]int, error)
	// Start starts a unit and returns the result of its job in systemd's words: done, failed, dependency, timeout … The
	// error is ErrNoUnit when there is no such unit.
	Start func(ctx context.Context, unit string) (string, error)
	// Requires lists the units that a unit requires.
	Requires func(ctx context.Context, unit string) ([]string, error)
	// Details returns more about one unit, which need not be loaded.
	Details func(ctx context.Context, unit string) (Details, error)
}

// Details is what the gate asks about few units only.
type Details struct {
	// Exists is whether the root has the unit and does not mask it. Transient is whether somebody made it at run time, as
	// systemd-run does.
	Exists, Transient bool
	// OnBus is whether a service has a name on the bus, so that it starts when somebody asks for that.
	OnBus bool
	// TriggeredBy lists the sockets, timers and paths that start the unit, WantedBy the units that want or require it.
	// Devices are not among these: they do not start what they want a second time after a soft reboot.
	TriggeredBy, WantedBy []string
	// Declined is whether the unit was not started because a condition of it does not hold.
	Declined bool
	// Ended is when the last process of a service ended without a failure, as the time since the kernel booted; 0 when it
	// runs, failed or never ran.
	Ended time.Duration
}

// Unit is a unit's state in systemd's words.
type Unit struct {
	Name, Load, Active, Sub string
	// Changed is when a failed unit entered its state, as the time since the kernel booted; 0 for a unit that has not
	// failed.
	Changed time.Duration
}

// Failed reports whether a unit failed. One without a unit file does not count: it belongs to the former root, and PID
// 1 remembers it across a soft reboot.
func (u Unit) Failed() bool { return u.Active == "failed" && u.Load != "not-found" }

// Restarting reports whether systemd is about to start a service again that crashed.
func (u Unit) Restarting() bool { return strings.HasPrefix(u.Sub, "auto-restart") }

// Running reports whether a unit is a service that is up or coming up.
func (u Unit) Running() bool {
	return strings.HasSuffix(u.Name, ".service") && u.Active != "inactive" && u.Active != "failed"
}

// NamesOf returns the names of the units that match.
func NamesOf(units []Unit, match func(Unit) bool) []string {
	var list []string
	for _, u := range units {
		if match(u) {
			list = append(list, u.Name)
		}
	}
	return list
}

// ErrNoUnit reports that there is no such unit.
var ErrNoUnit = errors.New("there is no such unit")

// PID1 returns systemd of this host.
func PID1() Manager {
	return Manager{
		Starting: starting, Units: units, Restarts: restarts, Start: start, Requires: requires, Details: details,
	}
}

func withPID1[T any](ctx context.Context, ask func(*dbus.Conn) (T, error)) (answer T, err error) {
	err = pid1.WithConn(ctx, func(conn *dbus.Conn) (err error) {
		answer, err = ask(conn)
		return err
	})
	return answer, err
}

func starting(ctx context.Context) ([]string, error) {
	return withPID1(ctx, func(conn *dbus.Conn) ([]string, error) {
		jobs, err := conn.ListJobsContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot list systemd's jobs: %w", err)
		}
		var list []string
		for _, j := range jobs {
			// A job that only waits is ordered after one that runs, or after the unit that calls the gate.
			if j.JobType == "start" && j.Status == "running" {
				list = append(list, j.Unit)
			}
		}
		return list, nil
	})
}

func units(ctx context.Context) ([]Unit, error) {
	return withPID1(ctx, func(conn *dbus.Conn) ([]Unit, error) {
		all, err := conn.ListUnitsContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot list systemd's units: %w", err)
		}
		var list []Unit
		for _, u := range all {
			unit := Unit{Name: u.Name, Load: u.LoadState, Active: u.ActiveState, Sub: u.SubState}
			if unit.Failed() {
				p, err := conn.GetUnitPropertyContext(ctx, u.Name, "StateChangeTimestampMonotonic")
				if err != nil {
					return nil, fmt.Errorf("cannot ask systemd when %s failed: %w", u.Name, err)
				}
				microseconds, _ := p.Value.Value().(uint64)
				unit.Changed = time.Duration(microseconds) * time.Microsecond
			}
			list = append(list, unit)
		}
		return list, nil
	})
}

func restarts(ctx context.Context, services []string) (map[string]int, error) {
	return withPID1(ctx, func(conn *dbus.Conn) (map[string]int, error) {
		counts := map[string]int{}
		for _, s := range services {
			p, err := conn.GetUnitTypePropertyContext(ctx, s, "Service", "NRestarts")
			if err != nil {
				if ctx.Err() != nil {
					return nil, fmt.Errorf("cannot ask systemd about %s: %w", s, err)
				}
				continue
			}
			if n, ok := p.Value.Value().(uint32); ok {
				counts[s] = int(n)
			}
		}
		return counts, nil
	})
}

func start(ctx context.Context, unit string) (string, error) {
	result, err := pid1.RunJob(ctx, "start", unit, "replace")
	var answer godbus.Error
	switch {
	case errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.NoSuchUnit":
		return "", ErrNoUnit
	case err != nil && ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("cannot start it: %w", err)
	}
	return result, nil
}

func requires(ctx context.Context, unit string) ([]string, error) {
	return withPID1(ctx, func(conn *dbus.Conn) ([]string, error) {
		p, err := conn.GetUnitPropertyContext(ctx, unit, "Requires")
		if err != nil {
			return nil, fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
		}
		list, _ := p.Value.Value().([]string)
		return list, nil
	})
}

func details(ctx context.Context, unit string) (Details, error) {
	return withPID1(ctx, func(conn *dbus.Conn) (Details, error) {
		all, err := conn.GetUnitPropertiesContext(ctx, unit)
		if err != nil {
			return Details{}, fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
		}
		service := map[string]any{}
		if strings.HasSuffix(unit, ".service") && all["LoadState"] == "loaded" {
			if service, err = conn.GetUnitTypePropertiesContext(ctx, unit, "Service"); err != nil {
				return Details{}, fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
			}
		}
		return detailsFrom(all, service), nil
	})
}

// detailsFrom reads the properties of a unit, and those that only a service has.
func detailsFrom(all, service map[string]any) Details {
	list := func(name string) []string { l, _ := all[name].([]string); return l }
	isDevice := func(unit string) bool { return strings.HasSuffix(unit, ".device") }
	d := Details{
		Exists:      all["LoadState"] == "loaded",
		TriggeredBy: list("TriggeredBy"),
		WantedBy: slices.DeleteFunc(slices.Concat(list("WantedBy"), list("RequiredBy"), list("RequisiteOf"),
			list("BoundBy")), isDevice),
	}
	bus, _ := service["BusName"].(string)
	d.OnBus = bus != ""
	d.Transient, _ = all["Transient"].(bool)
	asked, _ := all["ConditionTimestampMonotonic"].(uint64)
	d.Declined = asked > 0 && all["ConditionResult"] == false
	if at, _ := service["ExecMainExitTimestampMonotonic"].(uint64); all["ActiveState"] == "inactive" &&
		service["Result"] == "success" {
		d.Ended = time.Duration(at) * time.Microsecond
	}
	return d
}
