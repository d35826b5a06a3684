package circumstances

import (
	"context"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

const networkManager = "org.freedesktop.NetworkManager"

// Metered reports whether the host reaches the network over a metered link, as NetworkManager reports it. Where
// NetworkManager does not run, nothing is known of such links and the answer is false: it is not started for this.
func Metered(ctx context.Context, bus *godbus.Conn) (bool, error) {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	var runs bool
	if err := bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, networkManager).
		Store(&runs); err != nil {
		return false, fmt.Errorf("cannot ask the bus for NetworkManager: %w", err)
	}
	if !runs {
		return false, nil
	}
	v, err := property(ctx, bus.Object(networkManager, "/org/freedesktop/NetworkManager"), networkManager, "Metered")
	if answered(err, "ServiceUnknown", "NameHasNoOwner", "UnknownProperty") { // it ended since, or is very old
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot ask NetworkManager whether the link is metered: %w", err)
	}
	const yes, guessYes = 1, 3 // NMMetered
	n, _ := v.Value().(uint32)
	return n == yes || n == guessYes, nil
}
