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
