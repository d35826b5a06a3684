package trial

import (
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
)

// newTrial returns a Trial of a host in a temporary directory.
func newTrial(t *testing.T) *Trial {
	t.Helper()
	h := hosttest.New(t)
	r := roots.Roots{Host: h}
	return &Trial{Host: h, Roots: r, Transition: transition.NewArrival(h, r)}
}
