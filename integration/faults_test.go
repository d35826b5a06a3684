//go:build lab && faults

package integration

import (
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fault"
)

// TestEveryFault lets every step of staging, preparing a switch, arming, confirming, collecting and rolling back that
// touches the disk or the mounts fail with every error it can meet, and crash there.
func TestEveryFault(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "faults")
	const least = 20 // faults of the shortest act; fewer would mean that steps are missed
	s.acts(func(a act) { a.meets(t, s, func(fault.Spec) bool { return true }, least) })
}
