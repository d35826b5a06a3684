package pid1

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/coreos/go-systemd/v22/unit"
)

// Unmounted returns the mount unit that a path needs and that is not active, "" for none: what is at the path then is
// not what should be there. These are the units that RequiresMountsFor= of systemd.unit(5) requires.
func (s System) Unmounted(ctx context.Context, p string) (mountUnit string, err error) {
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsByNamesContext(ctx, mountUnits(p))
		if err != nil {
			return fmt.Errorf("cannot ask systemd whether %s is mounted: %w", p, err)
		}
		mountUnit = firstInactive(units)
		return nil
	})
	return mountUnit, err
}

// mountUnits returns the names of the units that mount a path or something above it.
func mountUnits(p string) (names []string) {
	at := ""
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		at += "/" + name
		names = append(names, unit.UnitNamePathEscape(at)+".mount")
	}
	return names
}

// firstInactive returns the name of the first unit that exists and is not active, "" for none.
func firstInactive(units []dbus.UnitStatus) string {
	at := slices.IndexFunc(units, func(u dbus.UnitStatus) bool {
		return u.LoadState == "loaded" && u.ActiveState != "active"
	})
	if at < 0 {
		return ""
	}
	return units[at].Name
}
