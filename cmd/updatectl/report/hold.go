package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/agent/hold"
)

// holdText writes at which ports new connections are held during the switch, or why at none.
func holdText(w io.Writer, p *hold.Plan) {
	switch {
	case p == nil:
	case p.Reason != "":
		fmt.Fprintf(w, "Hold\tnothing: %s\n", p.Reason)
	default:
		var ports []string
		for _, port := range p.Ports {
			ports = append(ports, fmt.Sprint(port))
		}
		fmt.Fprintf(w, "Hold\tnew connections to TCP port %s wait until a program listens there again\n",
			strings.Join(ports, ", "))
	}
}

// firewallText writes what connections wait for while the packet filter is away, or why they do not wait.
func firewallText(w io.Writer, p *hold.FirewallPlan) {
	switch {
	case p == nil:
	case p.Reason != "":
		fmt.Fprintf(w, "Firewall\tnothing is held: %s\n", p.Reason)
	default:
		fmt.Fprintf(w, "Firewall\tnew TCP connections from other hosts wait until %s runs in the new root\n",
			strings.Join(p.Units, ", "))
		for _, unit := range p.Missing {
			fmt.Fprintf(w, "  missing\t%s\tthe new root does not start it; connections wait until all else has started\n",
				unit)
		}
	}
}
