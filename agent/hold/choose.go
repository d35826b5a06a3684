// Package hold holds connections to ports while nobody listens there during a switch. It promises that nothing depends
// on it: what it cannot do is logged, and the switch goes on; and that no port stays held when the guard ends, or for
// more than a minute when it hangs.
package hold

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/switcher/keep"
)

// choose returns the ports that a rule holds, sorted: of those that other hosts can connect to now. Left out are ports
// of units that are kept and stay open. By is the unit of each port, as far as it is known.
func choose(rule config.HoldRule, open, by []listening.Port, kept []string) []uint16 {
	var ports []uint16
	for _, p := range open {
		number := uint16(p.Number)
		isKept := slices.ContainsFunc(by, func(b listening.Port) bool {
			return b.Protocol == "tcp" && b.Number == p.Number && slices.Contains(kept, b.Unit)
		})
		if isReachable(p) && !isKept && (rule.Listening || slices.Contains(rule.Ports, number)) {
			ports = append(ports, number)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// nothingToHold is why no port is held.
const nothingToHold = "no port that [switch] hold names is open to other hosts and closes at a switch"

// portsOf returns the ports of the configuration, of those that are open, with what is kept.
func portsOf(h *host.Host, open []listening.Port, kept []keep.Kept) ([]uint16, error) {
	var by []listening.Port
	if read := h.Machine.Gate(h.Config.HealthGate()).Ports; read != nil {
		var err error
		if by, err = read(); err != nil {
			return nil, fmt.Errorf("cannot tell which units listen: %w", err)
		}
	}
	return choose(h.Config.HoldRule(), open, by, openThrough(kept)), nil
}

// survivors returns the services that a soft reboot leaves alone, such as by their own unit files.
func survivors(ctx context.Context, h *host.Host) (kept []keep.Kept) {
	active, err := h.Machine.Units.Active(ctx)
	if err != nil {
		h.Log.Warn("cannot ask which services go on: their ports are held, too", zap.Error(err))
	}
	for _, u := range active {
		if u.Survives && u.Runs && !u.Stops {
			kept = append(kept, keep.Kept{Unit: u.Name, Way: keep.Process})
		}
	}
	return kept
}

// isReachable reports whether other hosts can connect to a port.
func isReachable(p listening.Port) bool { return p.Protocol == "tcp" && !p.Local }

// openThrough returns the units whose ports stay open during a switch, because they are kept: as a process, or as a
// socket, with its service. The store of a service may or may not have the socket at which it listens.
func openThrough(units []keep.Kept) []string {
	var names []string
	for _, u := range units {
		switch u.Way {
		case keep.Process:
			names = append(names, u.Unit)
		case keep.Socket:
			names = append(names, u.Unit, u.Service, strings.TrimSuffix(u.Unit, ".socket")+".service")
		}
	}
	return names
}
