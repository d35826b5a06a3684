package transition

import (
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/roots"
)

// newArrival returns an Arrival of a host in a temporary directory.
func newArrival(t *testing.T) *Arrival {
	t.Helper()
	h := hosttest.New(t)
	a := NewArrival(h, roots.Roots{Host: h})
	return &a
}
