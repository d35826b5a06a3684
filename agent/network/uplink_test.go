package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// hostWith returns a host with these files, and a default route over eth0 with the index 2.
func hostWith(t *testing.T, files map[string]string) Host {
	t.Helper()
	h := Host{Root: t.TempDir(), Addresses: func() (map[string][]Address, error) {
		return map[string][]Address{"eth0": {{Address: netip.MustParseAddr("192.0.2.5")}}}, nil
	}}
	write := func(name, text string) {
		file := filepath.Join(h.Root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"+
		"eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"+
		"br-1\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"+
		"*\t00000000\t00000000\t0200\t0\t0\t4278198272\t00000000\t0\t0\t0\n") // unreachable default
	write("sys/class/net/eth0/ifindex", "2\n")
	for name, text := range files {
		write(name, text)
	}
	return h
}

// TestManager: what configures the interface is found by what it does in the running root, not by what another root
// left in /run.
func TestManager(t *testing.T) {
	noLease := map[string]string{"run/NetworkManager/devices/2": "[device]\nmanaged=true\n"}
	networkd := map[string]string{"run/systemd/netif/links/2": "ADMIN_STATE=configured\nOPER_STATE=routable\n"}
	nm := map[string]string{"run/NetworkManager/devices/2": "[device]\nmanaged=true\nconnection-uuid=ab-c\n"}
	external := map[string]string{
		"run/NetworkManager/devices/2": nm["run/NetworkManager/devices/2"],
		"run/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\nuuid=ab-c\n" +
			"[.nmmeta]\nnm-generated=true\nexternal=true\n",
	}
	included := map[string]string{
		"etc/network/interfaces":        "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n",
		"etc/network/interfaces.d/eth0": "auto eth0\niface eth0 inet static\n\taddress 192.0.2.5/24\n",
	}
	for name, c := range map[string]struct {
		files  map[string]string
		active []string
		want   string
	}{
		"nothing":                        {nil, nil, ""},
		"networkd":                       {networkd, []string{"systemd-networkd.service"}, "systemd-networkd"},
		"networkd ran in the other root": {networkd, nil, ""},
		"NetworkManager":                 {nm, []string{"NetworkManager.service"}, "NetworkManager"},
		"NetworkManager only watches it": {external, []string{"NetworkManager.service"}, ""},
		"NetworkManager gets no lease":   {noLease, []string{"NetworkManager.service"}, "NetworkManager"},
		"NetworkManager is not there":    {nm, []string{"systemd-networkd.service"}, ""},
		"ifupdown":                       {included, []string{"networking.service"}, "ifupdown"},
		"ifupdown, hotplugged":           {included, []string{"ifup@eth0.service"}, "ifupdown"},
		"the root has no ifupdown":       {included, nil, ""},
		"wicked":                         {nil, []string{"wicked.service"}, "wicked"},
		"the kernel":                     {map[string]string{"proc/cmdline": "quiet ip=dhcp\n"}, nil, KernelManager},
		"the kernel was told not to":     {map[string]string{"proc/cmdline": "quiet ip=off\n"}, nil, ""},
		"a file that includes itself": {map[string]string{"etc/network/interfaces": "source interfaces\n"},
			[]string{"networking.service"}, ""},
		"networkd leaves the interface": {map[string]string{"run/systemd/netif/links/2": "ADMIN_STATE=unmanaged\n"},
			[]string{"systemd-networkd.service"}, ""},
		"ifupdown leaves it to something": {map[string]string{"etc/network/interfaces": "iface eth0 inet manual\n"},
			[]string{"networking.service"}, ""},
		"a pattern": {map[string]string{"etc/network/interfaces": "iface /eth*/ inet dhcp\n"},
			[]string{"networking.service"}, "ifupdown"},
		"a DHCP client": {map[string]string{"proc/71/comm": "dhclient\n",
			"proc/71/cmdline": "dhclient\x00-4\x00eth0\x00"}, nil, "dhclient"},
		"a DHCP client for another": {map[string]string{"proc/71/comm": "dhclient\n",
			"proc/71/cmdline": "dhclient\x00-4\x00eth1\x00"}, nil, ""},
		"dhcpcd for all": {map[string]string{"proc/71/comm": "dhcpcd\n",
			"proc/71/cmdline": "dhcpcd: [manager] [ip4] [ip6]\x00"}, nil, "dhcpcd"},
	} {
		got, err := hostWith(t, c.files).Uplinks(c.active)
		if want := fmt.Sprintf("[{eth0 %s [{192.0.2.5 false}]}]", c.want); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %v (%v), want %s", name, got, err, want)
		}
	}
}

// TestNoUplink: a host without a default route has no uplink, and a kernel without IP is no error.
func TestNoUplink(t *testing.T) {
	h := Host{Root: t.TempDir()}
	if got, err := h.Uplinks(nil); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	all, err := Running().Addresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all["lo"] {
		if a.Address == netip.MustParseAddr("127.0.0.1") && !a.Leased {
			return
		}
	}
	t.Errorf("127.0.0.1 is missing in %v", all)
}
