package pid1

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// UnitStop is what is known of how a unit that runs will stop.
type UnitStop struct {
	Name string `json:"name"`
	// Timeout is how long it may take before it is killed; less than 0 is for ever.
	Timeout time.Duration `json:"timeout_ns"`
	// Type is the file system of a mount.
	Type string `json:"type,omitempty"`
	// Killed tells that SIGKILL follows when the time is over.
	Killed bool `json:"killed"`
}

// Blocker is a unit that may hold up a shutdown, and why.
type Blocker struct {
	Unit   string `json:"unit"`
	Reason string `json:"reason"`
}

// troublemakers are units known to hold up shutdowns, by the pattern of their name. Encrypted disks are not here: they
// decide the level, see [Decide].
var troublemakers = []struct{ pattern, reason string }{
	{"libvirt-guests.service", "it shuts virtual machines down, and waits for them"},
	{"docker.service", "with live-restore its containers go on, and what they mount stays busy"},
	{"podman-restart.service", "it stops containers one after the other"},
	{"iscsid.service", "disks over the network go with it"},
	{"packagekit.service", "it finishes its transaction first"},
	{"unattended-upgrades.service", "it finishes its upgrade first"},
}

// networked are file systems whose unmounting waits for a server.
var networked = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "beegfs", "fuse.sshfs", "9p"}

// Blockers names what is likely to hold up a shutdown that must be done within a deadline: what may take for ever first, then
// what may take longest.
func Blockers(units []UnitStop, deadline time.Duration) []Blocker {
	const forEver = time.Duration(math.MaxInt64)
	takes := func(u UnitStop) time.Duration {
		if u.Timeout < 0 {
			return forEver
		}
		return u.Timeout
	}
	units = slices.SortedFunc(slices.Values(units), func(a, b UnitStop) int {
		return cmp.Or(cmp.Compare(takes(b), takes(a)), strings.Compare(a.Name, b.Name))
	})
	var found []Blocker
	for _, u := range units {
		if reason := u.blocks(deadline); reason != "" {
			found = append(found, Blocker{u.Name, reason})
		}
	}
	return found
}

func (u UnitStop) blocks(deadline time.Duration) string {
	for _, t := range troublemakers {
		if ok, err := path.Match(t.pattern, u.Name); err == nil && ok {
			return t.reason
		}
	}
	switch {
	case slices.Contains(networked, u.Type):
		return fmt.Sprintf("unmounting %s waits for its server", u.Type)
	case u.Type != "" && !strings.HasPrefix(u.Type, "fuse"): // a local disk does not wait
	case u.Timeout < 0:
		return "it may take for ever to stop (TimeoutStopSec=infinity)"
	case u.Timeout > deadline:
		return fmt.Sprintf("it may take %v to stop, and the shutdown has %v", u.Timeout, deadline)
	case !u.Killed:
		return "it is not killed when it does not stop (SendSIGKILL=no)"
	}
	return ""
}

// UnitStops asks how the services and mounts that are active will stop. The agent's own are left out: they end by
// themselves.
func (s System) UnitStops(ctx context.Context) ([]UnitStop, error) {
	var stops []UnitStop
	err := With(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active", "reloading", "deactivating"})
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		for _, u := range units {
			kind := map[string]string{".service": "Service", ".mount": "Mount"}[path.Ext(u.Name)]
			if kind == "" || strings.HasPrefix(u.Name, "updatectl") {
				continue
			}
			properties, err := conn.GetUnitTypePropertiesContext(ctx, u.Name, kind)
			if err != nil {
				continue // it has gone
			}
			stops = append(stops, unitStop(u.Name, kind, properties))
		}
		return nil
	})
	return stops, err
}

// unitStop reads the properties of a unit as PID 1 gives them (org.freedesktop.systemd1(5)).
func unitStop(name, kind string, properties map[string]any) UnitStop {
	const forEver = ^uint64(0)
	u := UnitStop{Name: name, Killed: true}
	u.Type, _ = properties["Type"].(string)
	timeout := "TimeoutStopUSec"
	if kind == "Mount" {
		timeout = "TimeoutUSec"
	} else {
		u.Type = ""
	}
	if usec, ok := properties[timeout].(uint64); ok && usec == forEver {
		u.Timeout = -1
	} else if ok {
		u.Timeout = time.Duration(usec) * time.Microsecond
	}
	if kill, ok := properties["SendSIGKILL"].(bool); ok {
		u.Killed = kill
	}
	pid, _ := properties["MainPID"].(uint32)
	if stops, _ := properties["ExecStop"].([][]any); kind == "Service" && pid == 0 && len(stops) == 0 {
		u.Timeout = 0 // a oneshot that remains: nothing runs, and nothing will
	}
	return u
}
