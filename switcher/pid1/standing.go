package pid1

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// RenewUnit is the unit that renews what a soft reboot left active.
const RenewUnit = "updatectl-renew.service"

// Units is systemd of this host, asked about what a soft reboot leaves active.
type Units struct{}

// Service is an active service.
type Service struct {
	Name string
	// Changed is when it last changed its state, by a start or a reload, as the time since the kernel booted.
	Changed time.Duration
	// Stops is whether a soft reboot stops it; Survives, whether its processes are left alone, too.
	Stops, Survives bool
	// Runs is whether it has a process.
	Runs bool
	// ReloadFailed is whether its last reload failed.
	ReloadFailed bool
	// Group is the path of its control group, "" if it has none.
	Group string
}

// Services returns the active services.
func (Units) Services(ctx context.Context) ([]Service, error) {
	return servicesIn(ctx, "active", "reloading")
}

// Unstopped returns the services that are active, or being started or stopped.
func (Units) Unstopped(ctx context.Context) ([]Service, error) {
	return servicesIn(ctx, "active", "reloading", "activating", "deactivating")
}

// servicesIn returns the services in one of some states.
func servicesIn(ctx context.Context, states ...string) ([]Service, error) {
	var list []Service
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsByPatternsContext(ctx, states, []string{"*.service"})
		if err != nil {
			return fmt.Errorf("cannot list the active services: %w", err)
		}
		for _, u := range units {
			properties, err := conn.GetAllPropertiesContext(ctx, u.Name)
			if err != nil {
				if ctx.Err() != nil {
					return fmt.Errorf("cannot ask systemd about %s: %w", u.Name, err)
				}
				continue // it is gone by now
			}
			list = append(list, service(u.Name, properties))
		}
		return nil
	})
	return list, err
}

// service returns a service from its properties (org.freedesktop.systemd1(5)).
func service(name string, properties map[string]any) Service {
	changed, _ := properties["StateChangeTimestampMonotonic"].(uint64)
	conflicts, _ := properties["Conflicts"].([]string)
	survives, _ := properties["SurviveFinalKillSignal"].(bool)
	pid, _ := properties["MainPID"].(uint32)
	reload, _ := properties["ReloadResult"].(string)
	group, _ := properties["ControlGroup"].(string)
	return Service{
		Name: name, Changed: time.Duration(changed) * time.Microsecond,
		Stops:    slices.Contains(conflicts, "shutdown.target") || slices.Contains(conflicts, "soft-reboot.target"),
		Survives: survives, Runs: pid != 0, ReloadFailed: reload != "" && reload != "success", Group: group,
	}
}

// Renew has systemd reload a service, or restart it if it cannot be reloaded, in the order that its unit asks for. It
// does not wait for that.
func (Units) Renew(ctx context.Context, unit string) error {
	return WithConn(ctx, func(conn *dbus.Conn) error {
		if _, err := conn.ReloadOrRestartUnitContext(ctx, unit, "replace", nil); err != nil {
			return fmt.Errorf("cannot renew %s: %w", unit, err)
		}
		return nil
	})
}

// StartWanted has systemd start what the devices of this host want (SYSTEMD_WANTS= of udev rules), in the order that
// the units ask for, and does not wait for that. It returns the units that are started: those that exist and are not
// active. The error joins those of single units.
func (Units) StartWanted(ctx context.Context) (started []string, err error) {
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		wanted, err := wantedByDevices(ctx, conn)
		if err != nil || len(wanted) == 0 {
			return err
		}
		started, err = startInactive(ctx, conn, wanted, "which a device wants")
		return err
	})
	return started, err
}

// startInactive has systemd start those of the units that exist and are not active, and does not wait for that. Why is
// for errors, which join those of single units.
func startInactive(ctx context.Context, conn *dbus.Conn, names []string, why string) (started []string, err error) {
	units, err := conn.ListUnitsByNamesContext(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("cannot ask systemd about %s: %w", strings.Join(names, ", "), err)
	}
	for _, u := range units {
		if u.LoadState != "loaded" || u.ActiveState != "inactive" && u.ActiveState != "failed" {
			continue
		}
		if _, serr := conn.StartUnitContext(ctx, u.Name, "fail", nil); serr != nil {
			err = errors.Join(err, fmt.Errorf("cannot start %s, %s: %w", u.Name, why, serr))
			continue
		}
		started = append(started, u.Name)
	}
	return started, err
}

// wantedByDevices returns the units that devices want, each once.
func wantedByDevices(ctx context.Context, conn *dbus.Conn) ([]string, error) {
	devices, err := conn.ListUnitsByPatternsContext(ctx, []string{"active"}, []string{"*.device"})
	if err != nil {
		return nil, fmt.Errorf("cannot list the devices: %w", err)
	}
	var wanted []string
	for _, d := range devices {
		p, err := conn.GetUnitPropertyContext(ctx, d.Name, "Wants")
		if err != nil {
			continue // it is gone by now
		}
		units, _ := p.Value.Value().([]string)
		wanted = append(wanted, units...)
	}
	slices.Sort(wanted)
	return slices.Compact(wanted), nil
}

// TriggerDevices has udev apply its rules to the devices of this host, as if they had just been found. Disks are left
// out: in a root without the rules of device-mapper, its devices would lose their names, and systemd would unmount what
// is on them. Network interfaces are, too: they are in use, and a rule may rename them.
func (Units) TriggerDevices(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "udevadm", "trigger", "--action=add",
		"--subsystem-nomatch=block", "--subsystem-nomatch=net").CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot have udev apply its rules: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
