// Package listening answers at which ports of this host programs listen, and which units these belong to. It changes
// nothing.
package listening

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/updatectl/updatectl/switcher/cgroups"
)

// Port is a port at which a unit listens.
type Port struct {
	// Protocol is tcp or udp, Family 4 or 6.
	Protocol string `json:"protocol"`
	Family   int    `json:"family"`
	Number   int    `json:"port"`
	// Local is whether only this host can reach it.
	Local bool `json:"local,omitempty"`
	// Unit is the service or scope that the program belongs to.
	Unit string `json:"unit"`
}

// String returns the port as people write it.
func (p Port) String() string {
	return fmt.Sprintf("%s:%d (IPv%d, %s)", p.Protocol, p.Number, p.Family, p.Unit)
}

// IsCoveredBy reports whether a port that was open before is open still. A socket of IPv6 may serve IPv4, too, and one
// for this host only does not replace one for all.
func (p Port) IsCoveredBy(now []Port) bool {
	return slices.ContainsFunc(now, func(n Port) bool {
		return n.Protocol == p.Protocol && n.Number == p.Number && (p.Local || !n.Local) &&
			(n.Family == p.Family || n.Family == 6)
	})
}

// Ports returns the ports of this host that belong to a unit, sorted. Ports that the kernel chose are left out, and
// those of clients such as DHCP: they are others after every start. A port that only PID 1 holds is left out, too: its
// socket unit says more.
func Ports() ([]Port, error) { return portsOf("/proc") }

// state is how the kernel shows a socket that waits for others: listening, or unconnected.
var state = map[string]string{"tcp": "0A", "udp": "07"}

func portsOf(proc string) ([]Port, error) {
	least, most := chosen(proc)
	found, err := socketsOf(proc, least, most)
	if err != nil {
		return nil, err
	}
	units, err := unitsOf(proc, found)
	if err != nil {
		return nil, err
	}
	var list []Port
	for inode, p := range found {
		if p.Unit = units[inode]; p.Unit != "" && !p.isOfClient() {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number),
			cmp.Compare(a.Family, b.Family), cmp.Compare(a.Unit, b.Unit))
	})
	return slices.Compact(list), nil
}

// Sockets returns what reads the open ports of this host, without the units they belong to. It is cheap enough to be
// called many times in a second. The range of ports that the kernel assigns is read once: a new root may change it.
func Sockets() func() ([]Port, error) {
	least, most := chosen("/proc")
	return func() ([]Port, error) {
		found, err := socketsOf("/proc", least, most)
		return slices.Collect(maps.Values(found)), err
	}
}

// chosen returns the range of the ports that the kernel assigns to clients.
func chosen(proc string) (least, most int) {
	least, most = 32768, 60999 // ip(7)
	if text, err := os.ReadFile(filepath.Join(proc, "sys/net/ipv4/ip_local_port_range")); err == nil {
		fmt.Sscan(string(text), &least, &most)
	}
	return least, most
}

// socketsOf returns the open ports outside a range, by the number of the socket's inode.
func socketsOf(proc string, least, most int) (map[string]Port, error) {
	found := map[string]Port{}
	for protocol, waiting := range state {
		for _, family := range []int{4, 6} {
			file := filepath.Join(proc, "net", protocol+map[int]string{4: "", 6: "6"}[family])
			err := readSockets(file, waiting, func(inode string, p Port) {
				p.Protocol, p.Family = protocol, family
				if p.Number < least || p.Number > most {
					found[inode] = p
				}
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without this family
				return nil, fmt.Errorf("cannot read which ports are open: %w", err)
			}
		}
	}
	return found, nil
}

// isOfClient reports whether a port is that of a DHCP client, or one of the arbitrary ports of an RPC service.
func (p Port) isOfClient() bool {
	const dhcp4, dhcp6, portmapper, nfs = 68, 546, 111, 2049
	rpc := strings.HasPrefix(p.Unit, "rpc") || strings.HasPrefix(p.Unit, "nfs")
	return p.Protocol == "udp" && (p.Number == dhcp4 || p.Number == dhcp6) ||
		rpc && p.Number != portmapper && p.Number != nfs
}

// readSockets calls found for each waiting socket in a file like /proc/net/tcp. Its fields are a number, the local
// address with the port, the remote one, the state, …, the inode (number 9). Addresses are hexadecimal numbers in this
// machine's byte order, in words of 32 bits. Of TCP, the kernel lists the waiting ones first, and a busy host has many
// others.
func readSockets(file, waiting string, found func(inode string, p Port)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if waiting == state["tcp"] && len(fields) > 3 && fields[0] != "sl" && fields[3] != waiting {
			break
		}
		if len(fields) < 10 || fields[3] != waiting || !strings.HasSuffix(fields[2], ":0000") {
			continue
		}
		address, number, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(number, 16, 16)
		if err != nil || n == 0 {
			continue
		}
		found(fields[9], Port{Number: int(n), Local: isLoopback(address)})
	}
	return lines.Err()
}

// isLoopback reports whether an address of /proc/net/tcp or tcp6 is in 127.0.0.0/8, or is ::1.
func isLoopback(address string) bool {
	bytes, err := hex.DecodeString(address)
	if err != nil {
		return false
	}
	if len(bytes) == net.IPv4len {
		return binary.NativeEndian.AppendUint32(nil, binary.BigEndian.Uint32(bytes))[0] == 127
	}
	var loopback []byte // as the kernel shows it
	for word := range slices.Chunk(net.IPv6loopback, 4) {
		loopback = binary.BigEndian.AppendUint32(loopback, binary.NativeEndian.Uint32(word))
	}
	return slices.Equal(bytes, loopback)
}

// unitsOf returns the units of the programs that have these sockets open, by the number of the inode. PID 1 keeps the
// sockets of its socket units, and does not count.
func unitsOf(proc string, sockets map[string]Port) (map[string]string, error) {
	processes, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	units := map[string]string{}
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err != nil || pid == 1 {
			continue
		}
		dir := filepath.Join(proc, p.Name())
		files, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil { // it has ended
			continue
		}
		for _, f := range files {
			target, err := os.Readlink(filepath.Join(dir, "fd", f.Name()))
			inode, isSocket := strings.CutPrefix(target, "socket:[")
			inode = strings.TrimSuffix(inode, "]")
			if _, wanted := sockets[inode]; err != nil || !isSocket || !wanted {
				continue
			}
			if cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil && units[inode] == "" {
				units[inode] = cgroups.UnitIn(string(cgroup))
			}
		}
	}
	return units, nil
}
