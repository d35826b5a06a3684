package network

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
)

// Uplink is an interface of a default route.
type Uplink struct {
	Interface string `json:"interface"`
	// Manager is what configures the interface in the running root: "systemd-networkd", "NetworkManager", "ifupdown" …
	// It is "" when nothing does that is known here: the addresses were set from outside or by a script.
	Manager string `json:"manager,omitempty"`
	// Addresses are those with which others reach the host, not the link-local ones.
	Addresses []Address `json:"addresses,omitempty"`
}

// Address is an address of an interface.
type Address struct {
	Address netip.Addr `json:"address"`
	// Leased is whether the address expires: it comes from DHCP or a router.
	Leased bool `json:"leased,omitempty"`
}

// Host is where a host is looked at.
type Host struct {
	// Root is the directory that has its /proc, /run and /etc; "/" for the running host.
	Root string
	// Addresses returns the addresses of all interfaces, by the name of the interface.
	Addresses func() (map[string][]Address, error)
}

// Running returns the running host.
func Running() Host { return Host{Root: "/", Addresses: addresses} }

// Uplinks returns the interfaces of the default routes, sorted by name. Active lists the units that are active.
func (h Host) Uplinks(active []string) ([]Uplink, error) {
	routes, err := defaultRoutes(filepath.Join(h.Root, "proc/net"))
	if err != nil || len(routes) == 0 {
		return nil, err
	}
	all, err := h.Addresses()
	if err != nil {
		return nil, err
	}
	interfaces := map[string]bool{}
	for _, r := range routes {
		interfaces[r.Interface] = true
	}
	var list []Uplink
	for _, name := range slices.Sorted(maps.Keys(interfaces)) {
		list = append(list, Uplink{Interface: name, Manager: h.Manager(name, active), Addresses: all[name]})
	}
	return list, nil
}

// addresses returns the addresses of all interfaces of this machine that are not link-local. An address message is a
// struct ifaddrmsg (family, prefix, flags, scope, index at byte 4), then attributes; rtnetlink(7).
func addresses() (map[string][]Address, error) {
	const permanent = 0x80 // IFA_F_PERMANENT
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("cannot list the addresses: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, fmt.Errorf("cannot list the addresses: %w", err)
	}
	interfaces, err := net.Interfaces() // once: a host with many containers has as many
	if err != nil {
		return nil, fmt.Errorf("cannot list the interfaces: %w", err)
	}
	names := map[int]string{}
	for _, i := range interfaces {
		names[i.Index] = i.Name
	}
	all := map[string][]Address{}
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		name := names[int(binary.NativeEndian.Uint32(m.Data[4:]))]
		a := Address{Leased: m.Data[2]&permanent == 0}
		for _, attr := range attributes { // IFA_LOCAL is this end of a point-to-point link, IFA_ADDRESS may be the other
			if value, ok := netip.AddrFromSlice(attr.Value); ok && (attr.Attr.Type == syscall.IFA_LOCAL ||
				attr.Attr.Type == syscall.IFA_ADDRESS && !a.Address.IsValid()) {
				a.Address = value.Unmap()
			}
		}
		if name != "" && a.Address.IsValid() && !a.Address.IsLinkLocalUnicast() { // the interface may be new, or gone
			all[name] = append(all[name], a)
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b Address) int { return a.Address.Compare(b.Address) })
	}
	return all, nil
}
