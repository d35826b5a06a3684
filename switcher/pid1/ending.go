package pid1

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/updatectl/updatectl/switcher/ending"
)

// Ending returns the sessions, user managers, virtual machines, containers and other scopes that run now, and the
// packet filters that would open the host.
func (s System) Ending(ctx context.Context) ([]ending.Ending, error) {
	all := ending.OfUsers()
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active"})
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			if e, ends := ending.Of(u.Name, u.Description); ends {
				all = append(all, e)
			}
			if !ending.IsPacketFilter(u.Name) {
				continue
			}
			properties, err := conn.GetAllPropertiesContext(ctx, u.Name)
			if err == nil && ending.Opens(u.Name, properties) {
				all = append(all, ending.Ending{Unit: u.Name, What: ending.PacketFilter, Name: u.Name})
			}
		}
		return nil
	})
	slices.SortFunc(all, func(a, b ending.Ending) int { return strings.Compare(a.What+"/"+a.Name, b.What+"/"+b.Name) })
	return all, err
}
