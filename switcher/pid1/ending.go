package pid1

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Ending is a unit that a person started, or that runs for one, and that a soft reboot ends without asking.
type Ending struct {
	Unit string `json:"unit"`
	// What is its kind: "session", "user manager", "virtual machine", "container" or "scope".
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

// Ending returns the sessions, user managers, virtual machines, containers and other scopes that run now.
func (s System) Ending(ctx context.Context) (ending []Ending, err error) {
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active"})
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			if e, ends := endingOf(u.Name, u.Description); ends {
				ending = append(ending, e)
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
			name = shortContainer(unescape(name))
		}
		return Ending{unit, e.what, name}, e.what != ""
	}
	return Ending{}, false
}

// shortContainer shortens the identity of a container as podman and docker do.
func shortContainer(name string) string {
	const digits, shown = 64, 12
	if len(name) == digits && strings.Trim(name, "0123456789abcdef") == "" {
		return name[:shown]
	}
	return name
}

// unescape undoes the escaping of a unit's name for "-", see systemd-escape(1).
func unescape(name string) string { return strings.ReplaceAll(name, `\x2d`, "-") }
