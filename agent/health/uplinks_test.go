package health

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/network"
	"github.com/updatectl/updatectl/agent/systemd"
)

// eth0 returns an uplink with the addresses.
func eth0(manager string, addresses ...string) network.Uplink {
	u := network.Uplink{Interface: "eth0", Manager: manager}
	for _, a := range addresses {
		u.Addresses = append(u.Addresses, network.Address{Address: netip.MustParseAddr(a)})
	}
	return u
}

// TestUplinks: an address that is only left over in the kernel does not make a root healthy, and a host whose network
// is configured from outside is only compared.
func TestUplinks(t *testing.T) {
	const unconfigured = "network of eth0: nothing in this root configures it, and NetworkManager did before: the host " +
		"is unreachable after the next full reboot, or when a lease ends"
	for name, c := range map[string]struct {
		before, now []network.Uplink
		unknown     bool
		verdict     Verdict
		reason      string
	}{
		"nothing was observed": {now: []network.Uplink{eth0("")}},
		"as before": {
			before: []network.Uplink{eth0("networkd", "192.0.2.5")}, now: []network.Uplink{eth0("networkd", "192.0.2.5")},
			verdict: OK,
		},
		"another manager, another lease": {
			before: []network.Uplink{eth0("ifupdown", "192.0.2.5")}, now: []network.Uplink{eth0("networkd", "192.0.2.6")},
			verdict: Warn, reason: "the host no longer has the address 192.0.2.5",
		},
		"only the kernel knows the address": {
			before:  []network.Uplink{eth0("NetworkManager", "192.0.2.5")},
			now:     []network.Uplink{eth0("", "192.0.2.5")},
			verdict: Fail, reason: unconfigured,
		},
		"a resumed root": {
			before: []network.Uplink{eth0("NetworkManager", "192.0.2.5")}, unknown: true,
			verdict: Fail, reason: unconfigured,
		},
		"a resumed root while no lease is to be had": {
			before: []network.Uplink{eth0("networkd", "192.0.2.5")}, unknown: true,
			verdict: Warn, reason: "the host no longer has an IPv4 address on an interface of a default route",
		},
		"configured from outside": {
			before: []network.Uplink{eth0("", "192.0.2.5")}, now: []network.Uplink{eth0("", "192.0.2.5")}, verdict: OK,
		},
		"configured from outside, and gone": {
			before: []network.Uplink{eth0("", "192.0.2.5", "2001:db8::5")}, now: []network.Uplink{eth0("", "192.0.2.5")},
			verdict: Fail, reason: "network of eth0: the host no longer has an IPv6 address on an interface of a default route",
		},
		"a bridge took it over": {
			before: []network.Uplink{eth0("ifupdown", "192.0.2.5")},
			now: []network.Uplink{{Interface: "br0", Manager: "networkd", Addresses: []network.Address{
				{Address: netip.MustParseAddr("192.0.2.5")}}}},
			verdict: OK,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := gate(t, &machine{units: []systemd.Unit{service("ssh", "active", "running")}})
			g.Config.Deadline = 100 * time.Millisecond
			g.Uplinks = func([]string) ([]network.Uplink, error) { return c.now, nil }
			g.ManagerOf = func(name string, _ []string) string {
				if name == "eth0" && c.verdict == Warn {
					return "networkd"
				}
				return ""
			}
			r := g.Run(t.Context(), Before{Uplinks: c.before, Unknown: c.unknown})
			var got Result
			for _, result := range r.Results {
				if result.Kind == KindUplink {
					got = result
				}
			}
			if got.Verdict != c.verdict || r.Healthy() != (c.verdict != Fail) {
				t.Errorf("got %+v, healthy is %v", got, r.Healthy())
			}
			if want := got.Reason; c.verdict == Warn && want != c.reason || c.verdict == Fail && r.Reason() != c.reason {
				t.Errorf("the reason is %q and %q", got.Reason, r.Reason())
			}
			if r.CutOff() {
				t.Error("the host is said to be cut off: nobody asked a gateway")
			}
		})
	}
	g := gate(t, &machine{})
	g.Uplinks = func([]string) ([]network.Uplink, error) { return []network.Uplink{eth0("networkd", "192.0.2.5")}, nil }
	if b := Observe(context.Background(), g); len(b.Uplinks) != 1 || b.Uplinks[0].Manager != "networkd" {
		t.Errorf("observed %+v", b)
	}
}

// TestFailedWhenGood: a unit that had failed when this root was last good does not fail it now.
func TestFailedWhenGood(t *testing.T) {
	g := gate(t, &machine{units: []systemd.Unit{service("nftables", "failed", "failed")}})
	r := g.Run(t.Context(), Before{FailedWhenGood: []string{"nftables.service"}})
	if !r.Healthy() || verdicts(r, KindUnits) != "restarts ok, failed units warn" {
		t.Errorf("the report is %+v", r)
	}
	if s := r.State; len(s.Failed) != 1 || s.Failed[0] != "nftables.service" {
		t.Errorf("the state is %+v", s)
	}
}
