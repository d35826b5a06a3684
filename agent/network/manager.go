package network

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxFile bounds what is read of a state or configuration file, in bytes. Nothing that decides lies behind it.
const maxFile = 64 << 10

// KernelManager is the manager of interfaces that the kernel or the initrd configures by ip= on the kernel command
// line. It is the same in every root.
const KernelManager = "kernel command line"

// Manager returns what configures an interface in the running root, "" when nothing does that is known here. It may
// have no lease yet. Active lists the units that are active: what a manager left behind in /run also survives a soft
// reboot into a root that does not have this manager.
func (h Host) Manager(name string, active []string) string {
	isActive := func(units ...string) bool {
		return slices.ContainsFunc(units, func(u string) bool { return slices.Contains(active, u) })
	}
	index := strings.TrimSpace(h.read("sys/class/net", name, "ifindex"))
	switch {
	case isActive("systemd-networkd.service") && h.byNetworkd(index):
		return "systemd-networkd"
	case isActive("NetworkManager.service") && h.byNetworkManager(name, index):
		return "NetworkManager"
	case isActive("networking.service", "ifup@"+name+".service") && h.byIfupdown("/etc/network/interfaces", name, 0):
		return "ifupdown"
	case isActive("network.service") && h.read("etc/sysconfig/network-scripts/ifcfg-"+name) != "":
		return "network-scripts"
	case isActive("connman.service"):
		return "connman"
	case isActive("wicked.service", "wickedd.service"):
		return "wicked"
	}
	if client := h.dhcpClient(name); client != "" {
		return client
	}
	for word := range strings.FieldsSeq(h.read("proc/cmdline")) {
		if value, ok := strings.CutPrefix(word, "ip="); ok && value != "off" && value != "none" {
			return KernelManager
		}
	}
	return ""
}

// read returns the text of a file of the host, at most maxFile bytes; "" when it cannot be read.
func (h Host) read(elements ...string) string {
	f, err := os.Open(filepath.Join(append([]string{h.Root}, elements...)...))
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, maxFile)
	n, _ := f.Read(buf) // these files are read at once
	return string(buf[:n])
}

// value returns the value of a key in lines like key=value, "" when there is none.
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}

// byNetworkd reports whether systemd-networkd has a configuration for an interface and applies it.
func (h Host) byNetworkd(index string) bool {
	state := value(h.read("run/systemd/netif/links", index), "ADMIN_STATE")
	return state == "configured" || state == "configuring"
}

// byNetworkManager reports whether NetworkManager is in charge of an interface, although it may have no lease now. With
// a profile that it generated from addresses that were already there, it only watches.
func (h Host) byNetworkManager(name, index string) bool {
	state := h.read("run/NetworkManager/devices", index)
	if value(state, "managed") != "true" {
		return false
	}
	profiles, _ := filepath.Glob(filepath.Join(h.Root, "run/NetworkManager/system-connections/*")) // the pattern is valid
	return !slices.ContainsFunc(profiles, func(p string) bool {
		text := h.read(strings.TrimPrefix(p, h.Root))
		mine := value(text, "interface-name") == name || value(text, "uuid") == value(state, "connection-uuid")
		return mine && value(text, "external") == "true"
	})
}

// byIfupdown reports whether a file like /etc/network/interfaces, or one that it includes, configures an interface
// (interfaces(5)). Depth is how often it was included.
func (h Host) byIfupdown(file, name string, depth int) bool {
	const deepest = 4
	if depth > deepest {
		return false
	}
	for line := range strings.Lines(h.read(file)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 4 && f[0] == "iface" && isNamed(f[1], name) && f[3] != "manual":
			return true
		case len(f) >= 2 && strings.HasPrefix(f[0], "source"):
			pattern := f[1]
			if f[0] == "source-directory" {
				pattern += "/*"
			}
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(file), pattern)
			}
			included, _ := filepath.Glob(filepath.Join(h.Root, pattern)) // ifupdown ignores an invalid one, too
			for _, i := range included {
				if h.byIfupdown("/"+strings.TrimPrefix(strings.TrimPrefix(i, h.Root), "/"), name, depth+1) {
					return true
				}
			}
		}
	}
	return false
}

// isNamed reports whether the name in a stanza is that of an interface: itself, or a pattern between slashes.
func isNamed(stanza, name string) bool {
	if pattern, ok := strings.CutPrefix(stanza, "/"); ok {
		matched, _ := path.Match(strings.TrimSuffix(pattern, "/"), name)
		return matched
	}
	return stanza == name
}

// dhcpClient returns the name of a DHCP client that runs for an interface, "" when none does.
func (h Host) dhcpClient(name string) string {
	processes, err := os.ReadDir(filepath.Join(h.Root, "proc"))
	if err != nil {
		return ""
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		program := strings.TrimSpace(h.read("proc", p.Name(), "comm"))
		if !slices.Contains([]string{"dhclient", "dhcpcd", "udhcpc"}, program) {
			continue
		}
		words := strings.FieldsFunc(h.read("proc", p.Name(), "cmdline"), func(r rune) bool { return r == 0 || r == ' ' })
		// dhcpcd without a name is responsible for all interfaces; it changes its command line to say so.
		if slices.Contains(words, name) || slices.Contains(words, "[manager]") || slices.Contains(words, "[master]") {
			return program
		}
	}
	return ""
}
