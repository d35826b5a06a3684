//go:build lab && faults

package integration

import (
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fault"
)

// TestEveryFault goes through a table: every step of staging, preparing a switch, arming, confirming, collecting and
// rolling back that touches the disk or the mounts, with every error it can meet and with a crash.
func TestEveryFault(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "faults")
	const least = 20 // of the shortest act; fewer would mean that its steps are not seen
	s.acts(func(a act) { a.meets(t, s, func(fault.Spec) bool { return true }, least) })
}
