package pid1

import (
	"strings"
	"testing"
	"time"
)

func TestBlockers(t *testing.T) {
	const deadline = 2 * time.Minute
	for name, c := range map[string]struct {
		unit UnitStop
		want string
	}{
		"ordinary": {UnitStop{Name: "nginx.service", Timeout: 90 * time.Second, Killed: true}, ""},
		"oneshot":  {UnitStop{Name: "apparmor.service", Killed: true}, ""},
		"infinite": {UnitStop{Name: "db.service", Timeout: -1, Killed: true}, "no stop timeout"},
		"longer than we wait": {UnitStop{Name: "db.service", Timeout: 5 * time.Minute, Killed: true},
			"may take 5m0s to stop, and the shutdown has 2m0s"},
		"never killed": {UnitStop{Name: "db.service", Timeout: time.Second}, "SendSIGKILL=no"},
		"nfs": {UnitStop{Name: "srv.mount", Type: "nfs4", Timeout: 90 * time.Second, Killed: true},
			"waits for its server"},
		"ext4, in a hurry": {UnitStop{Name: "srv.mount", Type: "ext4", Timeout: 5 * time.Minute, Killed: true}, ""},
		"ext4":             {UnitStop{Name: "srv.mount", Type: "ext4", Timeout: 90 * time.Second, Killed: true}, ""},
		"guests":           {UnitStop{Name: "libvirt-guests.service", Killed: true}, "virtual machines"},
	} {
		t.Run(name, func(t *testing.T) {
			found := Blockers([]UnitStop{c.unit}, deadline)
			if c.want == "" && len(found) != 0 ||
				c.want != "" && (len(found) != 1 || !strings.Contains(found[0].Reason, c.want)) {
				t.Errorf("Blockers = %+v, want %q", found, c.want)
			}
		})
	}
}

// TestBlockersByDefault: units with systemd's default timeout are only counted; units that set their own are listed.
func TestBlockersByDefault(t *testing.T) {
	found := Blockers([]UnitStop{
		{Name: "a.service", Timeout: time.Minute, Killed: true, Default: true},
		{Name: "b.service", Timeout: time.Minute, Killed: true},
		{Name: "docker.service", Timeout: time.Minute, Killed: true, Default: true},
	}, time.Second)
	if len(found) != 3 || !found[0].Default || found[1].Default || found[2].Default {
		t.Errorf("Blockers = %+v", found)
	}
}

// TestBlockersOrder: what may hold up a shutdown longest comes first.
func TestBlockersOrder(t *testing.T) {
	var order []string
	for _, b := range Blockers([]UnitStop{
		{Name: "a.service", Timeout: 5 * time.Minute, Killed: true}, {Name: "docker.service", Killed: true},
		{Name: "b.service", Timeout: time.Hour, Killed: true}, {Name: "z.service", Timeout: -1, Killed: true},
	}, 2*time.Minute) {
		order = append(order, b.Unit)
	}
	if got := strings.Join(order, " "); got != "z.service b.service a.service docker.service" {
		t.Errorf("the order is %s", got)
	}
}

func TestUnitStop(t *testing.T) {
	u := unitStop("db.service", "Service",
		map[string]any{"TimeoutStopUSec": ^uint64(0), "SendSIGKILL": false, "Type": "notify", "MainPID": uint32(7)})
	if u.Timeout >= 0 || u.Killed || u.Type != "" {
		t.Errorf("a service that never stops is %+v", u)
	}
	u = unitStop("srv.mount", "Mount", map[string]any{"TimeoutUSec": uint64(90e6), "Type": "nfs", "SendSIGKILL": true})
	if u.Timeout != 90*time.Second || u.Type != "nfs" || !u.Killed {
		t.Errorf("a mount is %+v", u)
	}
}
