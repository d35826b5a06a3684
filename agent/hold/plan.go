package hold

import (
	"fmt"
	"strings"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/keep"
)

// Plan is what [switch] hold does at a soft reboot.
type Plan struct {
	// Ports are held: those that are open now.
	Ports []uint16 `json:"ports"`
	// Reason is why none is held, "" if one is.
	Reason string `json:"reason,omitempty"`
}

// PlanOf returns what [switch] hold does at the next soft reboot, by the version of systemd and by what becomes of the
// units; nil without that key.
func PlanOf(h *host.Host, systemd int, fates []keep.UnitFate) *Plan {
	if len(h.Config.Switch.Hold) == 0 || h.Machine.Ports == nil || h.Machine.Observe == nil {
		return nil
	}
	const refused = "; new connections are refused during the switch"
	if systemd == switcher.OldestSystemd {
		reason := fmt.Sprintf("systemd %d ends the guard, which holds them%s", systemd, refused)
		return &Plan{Ports: []uint16{}, Reason: reason}
	}
	if err := h.Machine.Ports.Possible(); err != nil {
		return &Plan{Ports: []uint16{}, Reason: err.Error() + refused}
	}
	ports, err := portsOf(h, h.Machine.Observe(nil)().Ports, keptBy(fates))
	switch {
	case err != nil:
		return &Plan{Ports: []uint16{}, Reason: err.Error() + refused}
	case len(ports) == 0:
		return &Plan{Ports: []uint16{}, Reason: nothingToHold}
	}
	return &Plan{Ports: ports}
}

// keptBy returns the units that are kept, by what becomes of all.
func keptBy(fates []keep.UnitFate) (kept []keep.Kept) {
	for _, f := range fates {
		switch {
		case f.Fate == keep.Survives && f.Fault == "":
			kept = append(kept, keep.Kept{Unit: f.Unit, Way: keep.Process})
		case f.Fate == keep.KeepsDescriptors && strings.HasSuffix(f.Unit, ".socket"):
			kept = append(kept, keep.Kept{Unit: f.Unit, Way: keep.Socket})
		}
	}
	return kept
}
