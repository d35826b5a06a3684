// Package ending answers: what does a soft reboot end that somebody may count on, and by which name do people know it?
package ending

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/durable"
)

// Ending is a unit that a soft reboot ends without asking, and that somebody may count on.
type Ending struct {
	Unit string `json:"unit"`
	// What is its kind: "session", "user manager", "virtual machine", "container", "scope" or [PacketFilter].
	What string `json:"what"`
	// Name is what people know it by: who is logged in, or the name of the machine or container.
	Name string `json:"name"`
}

const (
	virtualMachine = "virtual machine"
	container      = "container"
)

// endings are the units that end, by patterns of their names, the first one counts. Of a name, what the pattern's "*"
// stands for remains.
var endings = []struct{ pattern, what string }{
	{"session-*.scope", "session"},
	{"user@*.service", "user manager"},
	{"machine-qemu*.scope", virtualMachine},
	{"machine-lxc*.scope", container},
	{"machine-*.scope", container},
	{"systemd-nspawn@*.service", container},
	{"systemd-vmspawn@*.service", virtualMachine},
	{"docker-*.scope", container},
	{"cri-containerd-*.scope", container},
	{"libpod-conmon-*.scope", ""}, // belongs to the container
	{"libpod-*.scope", container},
	{"crio-conmon-*.scope", ""},
	{"crio-*.scope", container},
	{"lxc.payload.*.scope", container},
	{"init.scope", ""},
	{"*.scope", "scope"},
}

// PacketFilter is a unit that removes its rules when it stops: until it starts again, the host is open.
const PacketFilter = "packet filter"

// packetFilters are the units of packet filters. Those with a command to stop them remove their rules by it, and
// firewalld does when it ends.
var packetFilters = []string{
	"nftables.service", "ufw.service", "iptables.service", "ip6tables.service", "netfilter-persistent.service",
	"shorewall.service", "shorewall6.service", "ferm.service", "firehol.service", "foomuuri.service", firewalld,
}

const firewalld = "firewalld.service"

// PacketFilters returns the units that are known as packet filters.
func PacketFilters() []string { return slices.Clone(packetFilters) }

// IsPacketFilter reports whether a unit is a packet filter.
func IsPacketFilter(unit string) bool { return slices.Contains(packetFilters, unit) }

// Opens reports whether the host is open after a packet filter has stopped at a soft reboot, by the properties of its
// unit. A unit that does not conflict with shutdown.target is not stopped.
func Opens(unit string, properties map[string]any) bool {
	conflicts, _ := properties["Conflicts"].([]string)
	stops, _ := properties["ExecStop"].([][]any)
	return slices.Contains(conflicts, "shutdown.target") && (len(stops) > 0 || unit == firewalld)
}

// Of returns what a unit that runs is, if a soft reboot ends it.
func Of(unit, description string) (Ending, bool) {
	e, ends := endingOf(unit, description)
	e.Name = nameOfContainer("/var/lib", e.Name)
	if e.What == container && isVirtual("/run/systemd/machines", unit) {
		e.What = virtualMachine
	}
	return e, ends
}

// endingOf returns what a unit is that ends, and whether it is one.
func endingOf(unit, description string) (Ending, bool) {
	for _, e := range endings {
		if ok, _ := path.Match(e.pattern, unit); !ok {
			continue
		}
		before, after, _ := strings.Cut(e.pattern, "*")
		name := strings.TrimSuffix(strings.TrimPrefix(unit, before), after)
		switch e.what {
		case "session", "user manager": // "Session 3 of User alice", "User Manager for UID 1000"
			name = description
		case virtualMachine: // qemu-2-web
			name = strings.TrimLeft(unescape(name), "-0123456789")
		case "scope":
			name = strings.TrimSuffix(unit, ".scope")
			if description != unit && description != "" {
				name += " (" + description + ")"
			}
		default:
			name = unescape(name)
		}
		return Ending{unit, e.what, name}, e.what != ""
	}
	return Ending{}, false
}

// OfUsers returns the containers of users who have a service manager. PID 1 does not know their units. Their names are
// in the homes of users, which root does not read.
func OfUsers() []Ending { return endingOfUsers("/sys/fs/cgroup/user.slice", userName) }

func endingOfUsers(slice string, userName func(uid string) string) (ending []Ending) {
	managers, _ := filepath.Glob(filepath.Join(slice, "user-*.slice/user@*.service"))
	for _, manager := range managers {
		uid := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(manager), "user@"), ".service")
		_ = filepath.WalkDir(manager, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() { // groups come and go
				return nil
			}
			e, ends := endingOf(d.Name(), "")
			if !ends || e.What != container {
				return nil
			}
			e.Name = shortID(e.Name) + " of " + userName(uid)
			ending = append(ending, e)
			return fs.SkipDir
		})
	}
	return ending
}

// userName returns the name of a user, or else what systemd calls him.
func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "UID " + uid
}

// isVirtual reports whether systemd-machined has noted a unit as a virtual machine, as sd_machine_get_class(3) reads
// it: the names of units are the same as those of containers.
func isVirtual(machines, unit string) bool {
	const maxNote = 64 << 10
	name, err := os.Readlink(filepath.Join(machines, "unit:"+unit))
	if err != nil {
		return false
	}
	text, err := durable.ReadRegular(filepath.Join(machines, filepath.Base(name)), maxNote)
	return err == nil && slices.Contains(strings.Split(string(text), "\n"), "CLASS=vm")
}

// maxContainers bounds what docker and podman write about containers, in bytes.
const maxContainers = 16 << 20

// nameOfContainer returns the name that docker or podman has for the identity of a container, or else as much of the
// identity as they show. Any other name stays as it is.
func nameOfContainer(state, id string) string {
	if shortID(id) == id {
		return id
	}
	var docker struct{ Name string }
	text, err := durable.ReadRegular(filepath.Join(state, "docker/containers", id, "config.v2.json"), maxContainers)
	if err == nil && json.Unmarshal(text, &docker) == nil && docker.Name != "" {
		return strings.TrimPrefix(docker.Name, "/")
	}
	var podman []struct {
		ID    string
		Names []string
	}
	text, err = durable.ReadRegular(filepath.Join(state, "containers/storage/overlay-containers/containers.json"),
		maxContainers)
	if err == nil && json.Unmarshal(text, &podman) == nil {
		for _, c := range podman {
			if c.ID == id && len(c.Names) > 0 {
				return c.Names[0]
			}
		}
	}
	return shortID(id)
}

// shortID returns as much of the identity of a container as docker and podman show, and any other name as it is.
func shortID(id string) string {
	const digits, shown = 64, 12
	if len(id) != digits || strings.Trim(id, "0123456789abcdef") != "" {
		return id
	}
	return id[:shown]
}

// unescape undoes the escaping of a unit's name for "-", see systemd-escape(1).
func unescape(name string) string { return strings.ReplaceAll(name, `\x2d`, "-") }
