package behind

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Running is a service that has a process now.
type Running struct {
	// Ports are those that it listens on, such as "tcp:80".
	Ports []string
}

// ephemeral is the first port that programs get when they ask for any: one above it is no service.
const ephemeral = 32768

// ReadRunning returns the services that have a process now, by unit, from a /proc. What cannot be read is left out.
func ReadRunning(proc string) map[string]Running {
	ports := listening(proc)
	running := map[string]Running{}
	pids, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, pid := range pids {
		text, _ := os.ReadFile(filepath.Join(pid, "cgroup"))
		service := serviceOf(string(text))
		if service == "" {
			continue
		}
		r := running[service]
		fds, _ := os.ReadDir(filepath.Join(pid, "fd"))
		for _, fd := range fds {
			target, _ := os.Readlink(filepath.Join(pid, "fd", fd.Name()))
			if port := ports[target]; port != "" && !slices.Contains(r.Ports, port) {
				r.Ports = append(r.Ports, port)
			}
		}
		running[service] = r
	}
	return running
}

// serviceOf returns the service of the system that a process belongs to, by its cgroup; "" for none. The first one in
// the path counts: what a container has inside is not the host's.
func serviceOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 || fields[0] != "0" && fields[1] != "name=systemd" || strings.HasPrefix(fields[2], "/user.slice") {
			continue
		}
		for name := range strings.SplitSeq(fields[2], "/") {
			if strings.HasSuffix(name, ".service") {
				return name
			}
			if strings.HasSuffix(name, ".scope") {
				break
			}
		}
	}
	return ""
}

// listening returns the ports that somebody listens on, by how an open socket is shown below /proc.
func listening(proc string) map[string]string {
	const listen, unconnected = "0A", "07" // TCP_LISTEN; a UDP socket without a peer
	ports := map[string]string{}
	for _, table := range []struct{ file, kind, state string }{
		{"tcp", "tcp", listen}, {"tcp6", "tcp", listen}, {"udp", "udp", unconnected}, {"udp6", "udp", unconnected},
	} {
		text, _ := os.ReadFile(filepath.Join(proc, "net", table.file))
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != table.state {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err == nil && (table.kind == "tcp" || port < ephemeral) {
				ports["socket:["+fields[9]+"]"] = fmt.Sprintf("%s:%d", table.kind, port)
			}
		}
	}
	return ports
}
