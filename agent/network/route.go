package network

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// route is a default route.
type route struct {
	// Interface is the name of the interface.
	Interface string
	// Gateway is unspecified, or not valid, when the route has none, such as that of a point-to-point link.
	Gateway netip.Addr
}

// defaultRoutes returns the default routes in the files of a directory like /proc/net. Those that only reject packets
// are left out: they have the interface "*" (IPv4) or lo (IPv6).
func defaultRoutes(dir string) ([]route, error) {
	var list []route
	for name, parse := range map[string]func([]string) (route, bool){"route": parseRoute4, "ipv6_route": parseRoute6} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) { // a kernel without this family
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the routes: %w", err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			r, isDefault := parse(strings.Fields(lines.Text()))
			if isDefault && r.Interface != "*" && r.Interface != "lo" {
				list = append(list, r)
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, fmt.Errorf("cannot read the routes: %w", err)
		}
	}
	return list, nil
}

// parseRoute4 returns the route in a line of /proc/net/route, and whether it is a default route. The fields are
// interface, destination, gateway, flags, …, mask (number 7); addresses are numbers in this machine's byte order.
func parseRoute4(f []string) (r route, isDefault bool) {
	if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
		return route{}, false
	}
	r.Interface = f[0]
	if b, err := hex.DecodeString(f[2]); err == nil && len(b) == net.IPv4len {
		var a [net.IPv4len]byte
		binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
		r.Gateway = netip.AddrFrom4(a)
	}
	return r, true
}

// parseRoute6 does the same for a line of /proc/net/ipv6_route. The fields are destination, its length, source, its
// length, gateway, …, interface (number 9).
func parseRoute6(f []string) (r route, isDefault bool) {
	if len(f) < 10 || f[1] != "00" || strings.Trim(f[0], "0") != "" {
		return route{}, false
	}
	r.Interface = f[9]
	if b, err := hex.DecodeString(f[4]); err == nil && len(b) == net.IPv6len {
		r.Gateway = netip.AddrFrom16([net.IPv6len]byte(b))
	}
	if r.Gateway.IsLinkLocalUnicast() {
		r.Gateway = r.Gateway.WithZone(r.Interface)
	}
	return r, true
}
