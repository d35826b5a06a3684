package pid1

import (
	"context"
	"fmt"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
)

// UnitState is the state of a unit in systemd's words.
type UnitState struct {
	Name, Load, Active string
	// Queued is whether a job for it waits or runs.
	Queued bool
}

// States returns the states of units, in their order. One that does not exist is not loaded.
func (Units) States(ctx context.Context, names []string) ([]UnitState, error) {
	var list []UnitState
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsByNamesContext(ctx, names)
		if err != nil {
			return fmt.Errorf("cannot ask systemd about %s: %w", strings.Join(names, ", "), err)
		}
		list, err = statesOf(names, units)
		return err
	})
	return list, err
}

// statesOf returns the states of units from the answer about them. Of an alias, the answer has another name.
func statesOf(names []string, answer []dbus.UnitStatus) ([]UnitState, error) {
	if len(answer) != len(names) {
		return nil, fmt.Errorf("cannot read what systemd says of %d units: it names %d", len(names), len(answer))
	}
	var list []UnitState
	for i, u := range answer {
		list = append(list, UnitState{Name: names[i], Load: u.LoadState, Active: u.ActiveState, Queued: u.JobId != 0})
	}
	return list, nil
}
