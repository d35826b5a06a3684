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

// UnitStop is how an active unit will stop.
type UnitStop struct {
	Name string `json:"name"`
	// Timeout is how long the unit may take to stop; less than 0 means without limit.
	Timeout time.Duration `json:"timeout_ns"`
	// Type is the file system type of a mount, "" for other units.
	Type string `json:"type,omitempty"`
	// Killed is whether SIGKILL follows when the timeout has passed.
	Killed bool `json:"killed"`
	// Default is whether the timeout is the default of systemd: it says nothing about the unit.
	Default bool `json:"default,omitempty"`
}

// Blocker is a unit that may hold up a shutdown, and why.
type Blocker struct {
	Unit   string `json:"unit"`
	Reason string `json:"reason"`
	// Default is whether only the default stop timeout of systemd is longer than the deadline. Most such units stop at
	// once.
	Default bool `json:"default,omitempty"`
}

// troublemakers are units that are known to hold up shutdowns, by patterns of their names. Encrypted disks are not
// here: they decide the level.
var troublemakers = []struct{ pattern, reason string }{
	{"libvirt-guests.service", "it shuts down virtual machines and waits for them"},
	{"docker.service", "with live-restore its containers keep running, and what they mount stays busy"},
	{"podman-restart.service", "it stops containers one after the other"},
	{"iscsid.service", "network disks stop working when it stops"},
	{"packagekit.service", "it finishes its transaction first"},
	{"unattended-upgrades.service", "it finishes its upgrade first"},
}

// networked are the file systems that wait for a server when they are unmounted.
var networked = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "beegfs", "fuse.sshfs", "9p"}

// Blockers returns the units that are likely to hold up a shutdown with this deadline: first those without a timeout,
// then those with the longest.
func Blockers(units []UnitStop, deadline time.Duration) []Blocker {
	const unlimited = time.Duration(math.MaxInt64)
	takes := func(u UnitStop) time.Duration {
		if u.Timeout < 0 {
			return unlimited
		}
		return u.Timeout
	}
	units = slices.SortedFunc(slices.Values(units), func(a, b UnitStop) int {
		return cmp.Or(cmp.Compare(takes(b), takes(a)), strings.Compare(a.Name, b.Name))
	})
	var found []Blocker
	for _, u := range units {
		if reason := u.blocks(deadline); reason != "" {
			onlyDefault := u.Default && u.Killed && reason == u.tooLong(deadline)
			found = append(found, Blocker{u.Name, reason, onlyDefault})
		}
	}
	return found
}

// blocks returns why a unit may hold up a shutdown, "" when it should not.
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
		return "it has no stop timeout (TimeoutStopSec=infinity)"
	case u.Timeout > deadline:
		return u.tooLong(deadline)
	case !u.Killed:
		return "it is not killed when it does not stop (SendSIGKILL=no)"
	}
	return ""
}

// tooLong returns the reason for a timeout that is longer than the deadline.
func (u UnitStop) tooLong(deadline time.Duration) string {
	return fmt.Sprintf("it may take %v to stop, and the shutdown has %v", u.Timeout, deadline)
}

// UnitStops returns how the active services and mounts will stop. The agent's own units are left out: they stop on
// their own.
func (s System) UnitStops(ctx context.Context) ([]UnitStop, error) {
	var stops []UnitStop
	err := WithConn(ctx, func(conn *dbus.Conn) error {
		units, err := conn.ListUnitsFilteredContext(ctx, []string{"active", "reloading", "deactivating"})
		if err != nil {
			return fmt.Errorf("cannot list the units: %w", err)
		}
		standard, _ := conn.GetManagerProperty("DefaultTimeoutStopUSec") // "@t 90000000"
		for _, u := range units {
			kind := map[string]string{".service": "Service", ".mount": "Mount"}[path.Ext(u.Name)]
			if kind == "" || strings.HasPrefix(u.Name, "updatectl") {
				continue
			}
			properties, err := conn.GetUnitTypePropertiesContext(ctx, u.Name, kind)
			if err != nil {
				continue // it is gone by now
			}
			stop := unitStop(u.Name, kind, properties)
			stop.Default = kind == "Service" && standard == fmt.Sprintf("@t %d", stop.Timeout.Microseconds())
			stops = append(stops, stop)
		}
		return nil
	})
	return stops, err
}

// unitStop returns how a unit will stop, from its properties (org.freedesktop.systemd1(5)).
func unitStop(name, kind string, properties map[string]any) UnitStop {
	const infinity = ^uint64(0)
	u := UnitStop{Name: name, Killed: true}
	u.Type, _ = properties["Type"].(string)
	timeout := "TimeoutStopUSec"
	if kind == "Mount" {
		timeout = "TimeoutUSec"
	} else {
		u.Type = ""
	}
	if usec, ok := properties[timeout].(uint64); ok && usec == infinity {
		u.Timeout = -1
	} else if ok {
		u.Timeout = time.Duration(usec) * time.Microsecond
	}
	if kill, ok := properties["SendSIGKILL"].(bool); ok {
		u.Killed = kill
	}
	pid, _ := properties["MainPID"].(uint32)
	if stops, _ := properties["ExecStop"].([][]any); kind == "Service" && pid == 0 && len(stops) == 0 {
		u.Timeout = 0 // a oneshot service that remains active: it has no process, and no command to stop it
	}
	return u
}
