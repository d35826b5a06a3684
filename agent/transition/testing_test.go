package transition

import (
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/roots"
)

// newMover returns a Mover of a host in a temporary directory.
func newMover(t *testing.T) *Mover {
	t.Helper()
	h := hosttest.New(t)
	return &Mover{Host: h, Roots: roots.Roots{Host: h}}
}
