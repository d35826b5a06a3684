package listening

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPorts reads the sockets of a made-up host.
func TestPorts(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	line := func(local, remote, state string, inode int) string {
		return fmt.Sprintf("   0: %s %s %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 100 0 0 10 0\n",
			local, remote, state, inode)
	}
	zero6 := strings.Repeat("0", 32)
	write("net/tcp", "  sl  local_address rem_address   st\n"+
		line("00000000:0016", "00000000:0000", "0A", 11)+ // sshd
		line("0100007F:1538", "00000000:0000", "0A", 12)+ // a database, for this host
		line("00000000:9C40", "00000000:0000", "0A", 13)+ // 40000, which the kernel chose
		line("00000000:1F90", "00000000:0000", "0A", 14)+ // a user's
		line("00000000:0801", "00000000:0000", "0A", 15)+ // nfsd, a thread of the kernel
		line("00000000:0277", "00000000:0000", "0A", 16)+ // a socket unit's, which nobody has asked for yet
		line("0100000A:0016", "0200000A:9999", "01", 17)) // a connection
	write("net/tcp6", line(zero6+":0016", zero6+":0000", "0A", 21))
	write("net/udp", line("00000000:0044", "00000000:0000", "07", 31)+line("00000000:007B", "00000000:0000", "07", 32)+
		line("00000000:0303", "00000000:0000", "07", 33))
	process := func(pid int, cgroup string, inodes ...int) {
		write(fmt.Sprintf("%d/cgroup", pid), "0::"+cgroup+"\n")
		dir := filepath.Join(proc, fmt.Sprint(pid), "fd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for n, i := range inodes {
			if err := os.Symlink(fmt.Sprintf("socket:[%d]", i), filepath.Join(dir, fmt.Sprint(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	process(1, "/init.scope", 16)
	process(100, "/system.slice/ssh.service", 11, 21)
	process(101, "/system.slice/db.service", 12, 13)
	process(102, "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", 14)
	process(103, "/system.slice/systemd-networkd.service", 31)
	process(104, "/system.slice/ntp.service", 32)
	process(105, "/system.slice/rpc-statd.service", 33)
	got, err := portsOf(proc)
	want := "[tcp:22 (IPv4, ssh.service) tcp:22 (IPv6, ssh.service) tcp:5432 (IPv4, db.service) " +
		"tcp:8080 (IPv4, user@1000.service) udp:123 (IPv4, ntp.service)]"
	if err != nil || fmt.Sprint(got) != want || !got[2].Local || got[0].Local {
		t.Errorf("got %v (%v), want %s", got, err, want)
	}
}

func TestIsCoveredBy(t *testing.T) {
	v4, v6, local := Port{"tcp", 4, 22, false, "a"}, Port{"tcp", 6, 22, false, "b"}, Port{"tcp", 4, 22, true, "c"}
	for _, c := range []struct {
		was, now Port
		want     bool
	}{
		{v4, v4, true}, {v4, v6, true}, {v6, v4, false}, {local, v4, true}, {v4, local, false},
		{v4, Port{"udp", 4, 22, false, "a"}, false}, {v4, Port{"tcp", 4, 23, false, "a"}, false},
	} {
		if got := c.was.IsCoveredBy([]Port{c.now}); got != c.want {
			t.Errorf("%v by %v: %v", c.was, c.now, got)
		}
	}
}

// TestThisMachine: the sockets of this machine can be read.
func TestThisMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Ports(); err != nil {
		t.Error(err)
	}
}

func TestLoopback(t *testing.T) {
	word := func(address string) string {
		var text string
		a := netip.MustParseAddr(address)
		for b := range slices.Chunk(a.AsSlice(), 4) {
			text += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b))
		}
		return text
	}
	for address, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.53": true, "::1": true, "10.0.0.127": false, "0.0.0.0": false, "::": false, "::2": false,
	} {
		if got := isLoopback(word(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
