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
