//go:build lab && power

package integration

import (
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestPowerCuts cuts the power at every step of the record and of the history, at several moments of each.
func TestPowerCuts(t *testing.T) {
	record(t, lab.Nspawn, "power").cuts(t, func(step, moment) bool { return true })
}

// TestVMPowerCuts cuts it in every phase of a machine, where the kernel, its file system and its boot are the host's own.
func TestVMPowerCuts(t *testing.T) {
	s := record(t, lab.QEMU, "vmpower")
	s.brief = true
	s.cuts(t, inEveryPhase())
}
