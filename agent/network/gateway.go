// Package network answers how this host reaches the network: its default gateways, and what configures the interfaces
// of its default routes. It changes nothing.
package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// Gateways returns the default gateways of this network namespace, those of IPv4 first.
func Gateways() ([]netip.Addr, error) { return gatewaysBelow("/proc/net") }

// gatewaysBelow returns the default gateways in the routes below a directory like /proc/net.
func gatewaysBelow(dir string) ([]netip.Addr, error) {
	routes, err := defaultRoutes(dir)
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, r := range routes {
		if r.Gateway.IsValid() && !r.Gateway.IsUnspecified() {
			list = append(list, r.Gateway)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list), nil
}

// AskGateway pings a gateway until it answers or the context ends, and returns nil when it answered. Many gateways
// ignore pings, but each must answer when the kernel asks for its hardware address, which the kernel does before it
// sends.
func AskGateway(ctx context.Context, a netip.Addr) error {
	for {
		err := ping(ctx, a)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) && isReachableNeighbour(a) {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("it answers neither pings nor requests for its hardware address: %w", err)
		}
	}
}

// The ICMP types of an echo request and of its reply.
const (
	echo4, reply4 = 8, 0
	echo6, reply6 = 128, 129
)

// ping sends an echo request and waits up to a second for the reply. The error is os.ErrDeadlineExceeded without one.
func ping(ctx context.Context, a netip.Addr) error {
	network, kind, reply := "ip4:icmp", byte(echo4), byte(reply4)
	if a.Is6() {
		network, kind, reply = "ip6:ipv6-icmp", echo6, reply6
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, a.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline := time.Now().Add(time.Second)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	id := uint16(os.Getpid())
	if _, err := conn.Write(echo(kind, id)); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.(*net.IPConn).ReadFrom(buf) // without the IP header
		if err != nil {
			return err
		}
		if n >= 8 && buf[0] == reply && binary.BigEndian.Uint16(buf[4:]) == id {
			return nil
		}
	}
}

// echo returns an echo request: type, code, checksum, identifier, sequence. For IPv6, the kernel fills in the checksum.
func echo(kind byte, id uint16) []byte {
	p := make([]byte, 8)
	p[0] = kind
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], 1)
	sum := uint32(0)
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[2:], ^uint16(sum+sum>>16))
	return p
}

// isReachableNeighbour reports whether a neighbour has answered the kernel within the last half minute (NUD_REACHABLE,
// rtnetlink(7)).
func isReachableNeighbour(a netip.Addr) bool {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETNEIGH, syscall.AF_UNSPEC)
	if err != nil {
		return false
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return isReachable(m.Data, a) })
}

// isReachable reports whether an entry of the neighbour table says that a is reachable. An entry is a struct ndmsg
// (family, interface at byte 4, state at byte 8), then attributes.
func isReachable(entry []byte, a netip.Addr) bool {
	const header, attribute, address, reachable = 12, 4, 1, 0x02
	if len(entry) < header || binary.NativeEndian.Uint16(entry[8:])&reachable == 0 {
		return false
	}
	index := int(binary.NativeEndian.Uint32(entry[4:]))
	if zone, err := net.InterfaceByName(a.Zone()); a.Zone() != "" && (err != nil || zone.Index != index) {
		return false
	}
	for rest := entry[header:]; len(rest) >= attribute; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < attribute || length > len(rest) {
			return false
		}
		if binary.NativeEndian.Uint16(rest[2:]) == address {
			got, ok := netip.AddrFromSlice(rest[attribute:length])
			return ok && got.Unmap() == a.WithZone("").Unmap()
		}
		rest = rest[min(len(rest), (length+3)&^3):]
	}
	return false
}
