package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestGateways(t *testing.T) {
	dir := t.TempDir()
	var a [4]byte = netip.MustParseAddr("192.0.2.1").As4()
	here := fmt.Sprintf("%08X", binary.NativeEndian.Uint32(a[:])) // the kernel prints it as a number of this machine
	route := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t" + here + "\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
		"eth1\t00000000\t" + here + "\t0003\t0\t0\t200\t00000000\t0\t0\t0\n" +
		"ppp0\t00000000\t00000000\t0001\t0\t0\t300\t00000000\t0\t0\t0\n" +
		"eth0\t000200C0\t" + here + "\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	zero := "00000000000000000000000000000000"
	route6 := zero + " 00 " + zero +
		" 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n" +
		zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200       lo\n" +
		"fe800000000000000000000000000000 40 " + zero + " 00 " + zero + " 00000100 00000001 00000000 00000001     eth0\n"
	for name, text := range map[string]string{"route": route, "ipv6_route": route6} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := gatewaysBelow(dir)
	if want := "[192.0.2.1 fe80::1%eth0]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v (%v), want %s", got, err, want)
	}
	if got, err := gatewaysBelow(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("without a network: %v, %v", got, err)
	}
}

// TestPing asks this machine itself, over both families.
func TestPing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("raw sockets need root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := AskGateway(ctx, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		if err := AskGateway(ctx, netip.MustParseAddr("::1")); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := AskGateway(ctx, netip.MustParseAddr("192.0.2.77")); err == nil {
		t.Error("an address that nobody has answers")
	}
}

func TestNeighbour(t *testing.T) {
	entry := func(state uint16, address netip.Addr) []byte {
		b := make([]byte, 12)
		binary.NativeEndian.PutUint16(b[8:], state)
		for _, attr := range []struct {
			kind  uint16
			value []byte
		}{{2, []byte{2, 0, 0, 0, 0, 1}}, {1, address.AsSlice()}} {
			b = binary.NativeEndian.AppendUint16(b, uint16(4+len(attr.value)))
			b = binary.NativeEndian.AppendUint16(b, attr.kind)
			b = append(b, attr.value...)
			b = append(b, make([]byte, (4-len(attr.value)%4)%4)...)
		}
		return b
	}
	const reachable, stale = 0x02, 0x04
	a, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	if !isReachable(entry(reachable, a), a) {
		t.Error("a neighbour that answered does not count")
	}
	if isReachable(entry(stale, a), a) || isReachable(entry(reachable, other), a) || isReachable(nil, a) ||
		isReachable(entry(reachable, a)[:20], a) {
		t.Error("an entry that says nothing about the neighbour counts")
	}
}
