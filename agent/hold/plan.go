package hold

import (
	"fmt"
	"strings"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/ending"
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
	if len(h.Config.Switch.Hold) == 0 || !isWanted(h) {
		return nil
	}
	const refused = "; new connections are refused during the switch"
	if why := impossible(h, systemd); why != "" {
		return &Plan{Ports: []uint16{}, Reason: why + refused}
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

// impossible returns why nothing can be held, "" if it can.
func impossible(h *host.Host, systemd int) string {
	if systemd == switcher.OldestSystemd {
		return fmt.Sprintf("systemd %d ends the guard, which holds them", systemd)
	}
	if err := h.Machine.Ports.Possible(); err != nil {
		return err.Error()
	}
	return ""
}

// FirewallPlan is what [switch] hold-firewall does at a soft reboot.
type FirewallPlan struct {
	// Units are the packet filters that are waited for: those that are active now.
	Units []string `json:"units"`
	// Missing are those of them that the new root does not start.
	Missing []string `json:"missing,omitempty"`
	// Reason is why nothing is held, "" if connections are.
	Reason string `json:"reason,omitempty"`
}

// noFilter is why hold-firewall holds nothing.
var noFilter = "no packet filter is active; known are " + strings.Join(ending.PacketFilters(), ", ")

// FirewallPlanOf returns what [switch] hold-firewall does at the next soft reboot, by the version of systemd and by
// what becomes of the units; nil without that key.
func FirewallPlanOf(h *host.Host, systemd int, fates []keep.UnitFate) *FirewallPlan {
	if !h.Config.Switch.HoldFirewall || !isWanted(h) {
		return nil
	}
	p := &FirewallPlan{Units: []string{}}
	for _, f := range fates {
		if !ending.IsPacketFilter(f.Unit) || f.Fate == keep.IsNew {
			continue
		}
		p.Units = append(p.Units, f.Unit)
		if f.Fate == keep.GoesAway {
			p.Missing = append(p.Missing, f.Unit)
		}
	}
	if len(p.Units) == 0 {
		p.Reason = noFilter
	} else if why := impossible(h, systemd); why != "" {
		p.Units, p.Missing = []string{}, nil
		p.Reason = why + "; services may be reachable before the packet filter is back"
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
