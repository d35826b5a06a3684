package roots

import (
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
)

// newRoots returns the Roots of a host in a temporary directory.
func newRoots(t *testing.T) *Roots {
	t.Helper()
	return &Roots{Host: hosttest.New(t)}
}
