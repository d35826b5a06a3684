package report

import (
	"bytes"
	"testing"

	"github.com/updatectl/updatectl/agent/hold"
)

func TestHoldText(t *testing.T) {
	for _, c := range []struct {
		plan *hold.Plan
		want string
	}{
		{},
		{&hold.Plan{Ports: []uint16{22, 80, 443}},
			"Hold\tnew connections to TCP port 22, 80, 443 wait until a program listens there again\n"},
		{&hold.Plan{Ports: []uint16{}, Reason: "this kernel has no nf_tables"},
			"Hold\tnothing: this kernel has no nf_tables\n"},
	} {
		var out bytes.Buffer
		if holdText(&out, c.plan); out.String() != c.want {
			t.Errorf("%+v is %q, want %q", c.plan, out.String(), c.want)
		}
	}
}

func TestFirewallText(t *testing.T) {
	const waits = "Firewall\tnew TCP connections from other hosts wait until "
	for _, c := range []struct {
		plan *hold.FirewallPlan
		want string
	}{
		{},
		{&hold.FirewallPlan{Units: []string{"nftables.service", "firewalld.service"}},
			waits + "nftables.service, firewalld.service runs in the new root\n"},
		{&hold.FirewallPlan{Units: []string{"nftables.service"}, Missing: []string{"nftables.service"}},
			waits + "nftables.service runs in the new root\n  missing\tnftables.service\tthe new root does not start it; " +
				"connections wait until all else has started\n"},
		{&hold.FirewallPlan{Units: []string{}, Reason: "this kernel has no nf_tables"},
			"Firewall\tnothing is held: this kernel has no nf_tables\n"},
	} {
		var out bytes.Buffer
		if firewallText(&out, c.plan); out.String() != c.want {
			t.Errorf("%+v is %q, want %q", c.plan, out.String(), c.want)
		}
	}
}
