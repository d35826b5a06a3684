package health

import (
	"context"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/network"
	"github.com/updatectl/updatectl/agent/systemd"
)

// comparesUplinks reports whether the uplinks can be known and are wanted.
func comparesUplinks(g Gate) bool { return g.Uplinks != nil && g.Config.Reachable != ReachableOff }

// activeOf returns the names of the units that are active. The one of ifupdown counts when it has failed, too: it fails
// when it gets no lease, and is there all the same.
func activeOf(units []systemd.Unit) []string {
	return systemd.NamesOf(units, func(u systemd.Unit) bool {
		return u.Active == "active" || u.Active == "failed" && u.Name == "networking.service" && u.Load == "loaded"
	})
}

// checkUplinks checks that the interfaces through which the host was reached are configured in this root, too. It notes
// them in state. An address stays in the kernel across a soft reboot, whether or not anything would set it again.
func checkUplinks(ctx context.Context, g Gate, before Before, state *State) []Result {
	if !comparesUplinks(g) {
		return nil
	}
	units, err := g.Systemd.Units(ctx)
	active := activeOf(units)
	if err == nil {
		state.Uplinks, err = g.Uplinks(active)
	}
	var results []Result
	for _, b := range before.Uplinks {
		results = append(results, g.timed("network of "+b.Interface, KindUplink, func() Result {
			if err != nil {
				return failf("%v", err)
			}
			if b.Manager != "" && !isConfigured(b.Interface, state.Uplinks) && g.ManagerOf(b.Interface, active) == "" {
				return failf("nothing in this root configures it, and %s did before: the host is unreachable after "+
					"the next full reboot, or when a lease ends", b.Manager)
			}
			return compareAddresses(b, before, state.Uplinks)
		}))
	}
	return results
}

// isConfigured reports whether something in this root configures an uplink. One that is no uplink any more does not
// matter if another one is configured, such as a bridge that took over its addresses.
func isConfigured(name string, now []network.Uplink) bool {
	if i := slices.IndexFunc(now, func(u network.Uplink) bool { return u.Interface == name }); i >= 0 {
		return now[i].Manager != ""
	}
	return slices.ContainsFunc(now, func(u network.Uplink) bool { return u.Manager != "" })
}

// compareAddresses checks that the host has an address of each family that an uplink had, on any uplink. A single
// address may change. So may a family after a full reboot, where a lease or a router may be late.
func compareAddresses(was network.Uplink, before Before, now []network.Uplink) Result {
	have := map[bool]bool{} // by whether it is IPv6
	var all, lost []string
	for _, u := range now {
		for _, a := range u.Addresses {
			have[a.Address.Is6()], all = true, append(all, a.Address.String())
		}
	}
	for _, a := range was.Addresses {
		switch family := map[bool]string{false: "IPv4", true: "IPv6"}[a.Address.Is6()]; {
		case !have[a.Address.Is6()] && before.Unknown:
			return warnf("the host no longer has an %s address on an interface of a default route", family)
		case !have[a.Address.Is6()]:
			return failf("the host no longer has an %s address on an interface of a default route", family)
		case !a.Leased && !slices.Contains(all, a.Address.String()):
			lost = append(lost, a.Address.String())
		}
	}
	if len(lost) > 0 {
		return warnf("the host no longer has the address %s", strings.Join(lost, ", "))
	}
	return Result{}
}
