package hold

import (
	"strings"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/switcher/keep"
)

// Plan is what [switch] hold does at a soft reboot.
type Plan struct {
	// Ports are held: those that are open now.
	Ports []uint16 `json:"ports"`
	// Reason is why none is held, "" if one is.
	Reason string `json:"reason,omitempty"`
}

// PlanOf returns what [switch] hold does at the next soft reboot, by what becomes of the units; nil without that key.
func PlanOf(h *host.Host, fates []keep.UnitFate) *Plan {
	if len(h.Config.Switch.Hold) == 0 || h.Machine.Ports == nil || h.Machine.Observe == nil {
		return nil
	}
	if err := h.Machine.Ports.Possible(); err != nil {
		return &Plan{Ports: []uint16{}, Reason: err.Error()}
	}
	by, err := h.Machine.Gate(h.Config.HealthGate()).Ports()
	if err != nil {
		return &Plan{Ports: []uint16{}, Reason: err.Error()}
	}
	p := &Plan{Ports: choose(h.Config.HoldRule(), h.Machine.Observe(nil)().Ports, by, openThrough(keptBy(fates)))}
	if len(p.Ports) == 0 {
		p.Ports, p.Reason = []uint16{}, "no port that is open and that [switch] hold names closes"
	}
	return p
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
