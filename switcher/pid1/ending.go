package pid1

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

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

// endings are the units that end, by patterns of their names, the first one counts. Of a name, what the pattern's "*"
// stands for remains.
var endings = []struct{ pattern, what string }{
	{"session-*.scope", "session"},
	{"user@*.service", "user manager"},
	{"machine-qemu*.scope", "virtual machine"},
	{"machine-lxc*.scope", "container"},
	{"machine-*.scope", "container"},
	{"systemd-nspawn@*.service", "container"},
	{"docker-*.scope", "container"},
	{"cri-containerd-*.scope", "container"},
	{"libpod-conmon-*.scope", ""}, // belongs to the container
	{"libpod-*.scope", "container"},
	{"crio-conmon-*.scope", ""},
	{"crio-*.scope", "container"},
	{"lxc.payload.*.scope", "container"},
	{"init.scope", ""},
	{"*.scope", "scope"},
}

// PacketFilter is a unit that removes its rules when it stops: until it starts again, the host is open.
const PacketFilter = "packet filter"

// packetFilters are the units of packet filters. Those with a command to stop them remove their rules by it, and
// firewalld does when it ends.
var packetFilters = []string{
	"nftables.service", "ufw.service", "iptables.service", "ip6tables.service", "netfilter-persistent.service",
	"shorewall.service", "ferm.service", firewalld,
}

const firewalld = "firewalld.service"

// opens reports whether the host is open after a packet filter has stopped at a soft reboot, by the properties of its
// unit. One that does not conflict with the shutdown is not stopped.
func opens(unit string, properties map[string]any) bool {
	conflicts, _ := properties["Conflicts"].([]string)
	stops, _ := properties["ExecStop"].([][]any)
	return slices.Contains(conflicts, "shutdown.target") && (len(stops) > 0 || unit == firewalld)
}

// Ending returns the sessions, user managers, virtual machines, containers and other scopes that run now, and the
// packet filters that would open the host.
func (s System) Ending(ctx context.Context) (ending []Ending, err error) {
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active"})
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			if e, ends := endingOf(u.Name, u.Description); ends {
				e.Name = nameOfContainer("/var/lib", e.Name)
				ending = append(ending, e)
			}
			if !slices.Contains(packetFilters, u.Name) {
				continue
			}
			if properties, err := conn.GetAllPropertiesContext(ctx, u.Name); err == nil && opens(u.Name, properties) {
				ending = append(ending, Ending{u.Name, PacketFilter, u.Name})
			}
		}
		return nil
	})
	slices.SortFunc(ending, func(a, b Ending) int { return strings.Compare(a.What+"/"+a.Name, b.What+"/"+b.Name) })
	return ending, err
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
		case "virtual machine": // qemu-2-web
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

// maxContainers bounds what docker and podman write about containers, in bytes.
const maxContainers = 16 << 20

// nameOfContainer returns the name that docker or podman has for the identity of a container, or else as much of the
// identity as they show. Any other name stays as it is.
func nameOfContainer(state, id string) string {
	const digits, shown = 64, 12
	if len(id) != digits || strings.Trim(id, "0123456789abcdef") != "" {
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
	return id[:shown]
}

// unescape undoes the escaping of a unit's name for "-", see systemd-escape(1).
func unescape(name string) string { return strings.ReplaceAll(name, `\x2d`, "-") }
