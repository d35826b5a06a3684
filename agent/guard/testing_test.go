package guard

import (
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
)

// newGuard returns a Guard of a host in a temporary directory.
func newGuard(t *testing.T) *Guard {
	t.Helper()
	h := hosttest.New(t)
	r := roots.Roots{Host: h}
	return &Guard{Host: h, Roots: r, Transition: transition.NewArrival(h, r)}
}
