package offer

import (
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
)

// newOffers returns the Offers of a host in a temporary directory.
func newOffers(t *testing.T) *Offers {
	t.Helper()
	return &Offers{Host: hosttest.New(t)}
}
