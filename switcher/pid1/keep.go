package pid1

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/updatectl/updatectl/switcher/keep"
)

// Kept returns how units are that are to be kept, and the control group of each. One that does not exist is not active.
func (Units) Kept(ctx context.Context, names []string) (map[string]keep.Now, map[string]string, error) {
	units, groups := map[string]keep.Now{}, map[string]string{}
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		for _, name := range names {
			p, err := conn.GetAllPropertiesContext(ctx, name)
			if err != nil {
				return fmt.Errorf("cannot ask systemd about %s: %w", name, err)
			}
			u := keptNow(p)
			for _, needed := range requirements(p) {
				if ends, err := stopsAtSoftReboot(ctx, conn, needed); err != nil {
					return err
				} else if ends {
					u.Ends = append(u.Ends, needed)
				}
			}
			groups[name], _ = p["ControlGroup"].(string)
			units[name] = u
		}
		return nil
	})
	return units, groups, err
}

// keptNow returns how a unit is, by its properties (org.freedesktop.systemd1(5)).
func keptNow(p map[string]any) keep.Now {
	state, _ := p["ActiveState"].(string)
	pid, _ := p["MainPID"].(uint32)
	room, _ := p["FileDescriptorStoreMax"].(uint32)
	stored, _ := p["NFileDescriptorStore"].(uint32)
	triggers, _ := p["Triggers"].([]string)
	u := keep.Now{Active: state == "active" || state == "reloading", Runs: pid != 0, Room: int(room), Stored: int(stored)}
	if len(triggers) > 0 {
		u.Service = triggers[0]
	}
	return u
}

// requirements returns the units whose stop stops a unit, by its properties. sysinit.target is left out: only default
// dependencies ask for it, and a kept unit has none.
func requirements(p map[string]any) []string {
	var all []string
	for _, key := range []string{"Requires", "BindsTo", "PartOf", "StopPropagatedFrom"} {
		units, _ := p[key].([]string)
		all = append(all, units...)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(name string) bool { return name == "sysinit.target" })
}

// stopsAtSoftReboot reports whether a soft reboot stops a unit.
func stopsAtSoftReboot(ctx context.Context, conn *dbus.Conn, name string) (bool, error) {
	p, err := conn.GetUnitPropertyContext(ctx, name, "Conflicts")
	if err != nil {
		return false, fmt.Errorf("cannot ask systemd about %s: %w", name, err)
	}
	conflicts, _ := p.Value.Value().([]string)
	return conflictsWithShutdown(conflicts), nil
}

// conflictsWithShutdown reports whether a unit with these conflicts is stopped by a soft reboot.
func conflictsWithShutdown(conflicts []string) bool {
	return slices.ContainsFunc([]string{"shutdown.target", "umount.target", "soft-reboot.target"},
		func(target string) bool { return slices.Contains(conflicts, target) })
}

// Active returns the active units whose fate is known, see [keep.Kinds].
func (Units) Active(ctx context.Context) ([]keep.Active, error) {
	var list []keep.Active
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active", "reloading"})
		if err != nil {
			return fmt.Errorf("cannot list the active units: %w", err)
		}
		for _, u := range units {
			if !slices.Contains(keep.Kinds, path.Ext(u.Name)) {
				continue
			}
			p, err := conn.GetAllPropertiesContext(ctx, u.Name)
			if err != nil {
				if ctx.Err() != nil || isLost(err) {
					return fmt.Errorf("cannot ask systemd about %s: %w", u.Name, err)
				}
				continue // it is gone by now
			}
			list = append(list, active(u.Name, p))
		}
		return nil
	})
	return list, err
}

// active returns an active unit from its properties.
func active(name string, p map[string]any) keep.Active {
	conflicts, _ := p["Conflicts"].([]string)
	file, _ := p["FragmentPath"].(string)
	preserve, _ := p["FileDescriptorStorePreserve"].(string)
	a := keep.Active{
		Name: name, Stops: conflictsWithShutdown(conflicts), Preserves: preserve == "yes",
		Generated: strings.HasPrefix(file, "/run/systemd/generator"),
	}
	a.Survives, _ = p["SurviveFinalKillSignal"].(bool)
	a.Stays, _ = p["IgnoreOnIsolate"].(bool)
	a.Transient, _ = p["Transient"].(bool)
	a.Group, _ = p["ControlGroup"].(string)
	u := keptNow(p)
	a.Runs, a.Stored = u.Runs, u.Stored
	return a
}

// Reload has systemd read the files of all units anew, and waits for that.
func (Units) Reload(ctx context.Context) error {
	return WithConn(ctx, func(conn *dbus.Conn) error {
		if err := conn.ReloadContext(ctx); err != nil {
			return fmt.Errorf("cannot have systemd read its units anew: %w", err)
		}
		return nil
	})
}

// StartHeld has systemd start the services of sockets that were held, and does not wait for that: connections may wait
// in such a socket, and systemd does not look for them while it takes the service for active. It returns what it
// starts.
func (Units) StartHeld(ctx context.Context, sockets []string) (started []string, err error) {
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		var services []string
		for _, name := range sockets {
			p, err := conn.GetAllPropertiesContext(ctx, name)
			if err != nil {
				return fmt.Errorf("cannot ask systemd about %s: %w", name, err)
			}
			triggers, _ := p["Triggers"].([]string)
			if p["SubState"] == "running" {
				services = append(services, triggers...)
			}
		}
		if len(services) > 0 {
			started, err = startInactive(ctx, conn, services, "for which connections wait")
		}
		if _, serr := conn.StopUnitContext(ctx, keep.HoldUnit, "replace", nil); serr == nil {
			_ = conn.ResetFailedUnitContext(ctx, keep.HoldUnit)
		}
		return err
	})
	return started, err
}
