package circumstances

import (
	"context"
	"errors"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// patience is how long one question may take. logind and NetworkManager answer in milliseconds.
const patience = 5 * time.Second

// Open returns a connection to the system bus, which the caller closes.
func Open(ctx context.Context) (*godbus.Conn, error) {
	bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("cannot reach the system bus: %w", err)
	}
	return bus, nil
}

// property reads a property of an object on the bus.
func property(ctx context.Context, of godbus.BusObject, iface, name string) (godbus.Variant, error) {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	var v godbus.Variant
	err := of.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, name).Store(&v)
	return v, err
}

// answered reports whether an error is an answer of the bus with one of the names.
func answered(err error, names ...string) bool {
	var answer godbus.Error
	if !errors.As(err, &answer) {
		return false
	}
	for _, name := range names {
		if answer.Name == "org.freedesktop.DBus.Error."+name {
			return true
		}
	}
	return false
}
