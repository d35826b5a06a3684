package hold

import (
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/switcher/keep"
)

func tcp(number, family int) listening.Port {
	return listening.Port{Protocol: "tcp", Family: family, Number: number}
}

func TestChoose(t *testing.T) {
	local, dns := tcp(5432, 4), tcp(53, 4)
	local.Local, dns.Protocol = true, "udp"
	open := []listening.Port{tcp(443, 4), tcp(80, 6), tcp(80, 4), tcp(22, 4), tcp(7001, 4), tcp(7002, 4), local, dns}
	web, ssh := tcp(7001, 4), tcp(22, 4)
	web.Unit, ssh.Unit = "web.service", "ssh.service"
	by := []listening.Port{web, ssh}
	for _, c := range []struct {
		name string
		rule config.HoldRule
		kept []keep.Kept
		want []uint16
	}{
		{name: "no rule"},
		{"named", config.HoldRule{Ports: []uint16{443, 80}}, nil, []uint16{80, 443}},
		{"named, and nobody listens", config.HoldRule{Ports: []uint16{8080}}, nil, nil},
		{"named, for this host only", config.HoldRule{Ports: []uint16{5432}}, nil, nil},
		{"all", config.HoldRule{Listening: true}, nil, []uint16{22, 80, 443, 7001, 7002}},
		{"all and one more", config.HoldRule{Listening: true, Ports: []uint16{80, 8080}}, nil,
			[]uint16{22, 80, 443, 7001, 7002}},
		{"a kept socket", config.HoldRule{Listening: true}, []keep.Kept{{Unit: "web.socket", Way: keep.Socket}},
			[]uint16{22, 80, 443, 7002}},
		{"a kept socket of a service with another name", config.HoldRule{Listening: true},
			[]keep.Kept{{Unit: "all.socket", Way: keep.Socket, Service: "web.service"}}, []uint16{22, 80, 443, 7002}},
		{"a process that goes on", config.HoldRule{Ports: []uint16{7001, 80}},
			[]keep.Kept{{Unit: "web.service", Way: keep.Process}}, []uint16{80}},
		{"a store may lack the socket", config.HoldRule{Ports: []uint16{7001}},
			[]keep.Kept{{Unit: "web.service", Way: keep.Descriptors}}, []uint16{7001}},
	} {
		if got := choose(c.rule, open, by, openThrough(c.kept)); !slices.Equal(got, c.want) {
			t.Errorf("%s: held are %v, want %v", c.name, got, c.want)
		}
	}
}

// TestKeptBy: plan leaves out the same ports as the switch itself.
func TestKeptBy(t *testing.T) {
	kept := keptBy([]keep.UnitFate{
		{Unit: "web.socket", Fate: keep.KeepsDescriptors}, {Unit: "store.service", Fate: keep.KeepsDescriptors},
		{Unit: "alive.service", Fate: keep.Survives}, {Unit: "claims.service", Fate: keep.Survives, Fault: "it is stopped"},
		{Unit: "ssh.service", Fate: keep.Restarts},
	})
	want := []keep.Kept{{Unit: "web.socket", Way: keep.Socket}, {Unit: "alive.service", Way: keep.Process}}
	if !slices.Equal(kept, want) {
		t.Errorf("kept are %v, want %v", kept, want)
	}
}

// TestWatch: a story of looks, each with what is held and released after it.
func TestWatch(t *testing.T) {
	const old, next = 1, 2
	up := []string{"nginx.service", "cron.service"}
	web4, web6, ssh := tcp(80, 4), tcp(80, 6), tcp(22, 4)
	all := []listening.Port{web4, web6, ssh}
	local := tcp(80, 4)
	local.Local = true
	type look struct {
		at            time.Duration
		mount         int
		services      []string
		open          []listening.Port
		queued        bool
		hold, release []uint16
	}
	for name, looks := range map[string][]look{
		"a switch": {
			{at: 1, mount: old, services: up, open: all},
			{at: 2, mount: old, services: up[:1], open: all},
			{at: 3, mount: old, open: nil},
			{at: 4, mount: next, open: nil},
			{at: 5e9, mount: next, open: []listening.Port{ssh}},
			{at: 5.4e9, mount: next, open: []listening.Port{ssh, web4}},
			{at: 5.5e9, mount: next, open: all, release: []uint16{22}},
			{at: 5.9e9, mount: next, open: all, release: []uint16{80}},
			{at: 7e9, mount: next, services: up, open: all},
		},
		"a program tests its configuration": {
			{at: 1, mount: next, open: nil},
			{at: 1e9, mount: next, open: all[:2]},
			{at: 1.4e9, mount: next, open: nil},
			{at: 1.6e9, mount: next, open: all[:2]},
			{at: 2e9, mount: next, open: all[:2]},
			{at: 2.1e9, mount: next, open: all[:2], release: []uint16{80}},
		},
		"between two looks, a port closed and opened in the next root": {
			{at: 1, mount: old, services: up, open: all},
			{at: 2, mount: next, services: up, open: all},
			{at: 1e9, mount: next, services: up, open: all, release: []uint16{80, 22}},
		},
		"an unknown mount is no other root": {
			{at: 1, mount: 0, services: up, open: all},
		},
		"the next root listens for one family": {
			{at: 1, mount: next, open: []listening.Port{web4, ssh}},
			{at: 1e9, mount: next, open: []listening.Port{web4, ssh}, release: []uint16{22}},
			{at: 2e9, mount: next, open: []listening.Port{web4, ssh}, release: []uint16{80}},
		},
		"the next root listens for this host only": {
			{at: 1, mount: next, open: []listening.Port{local, ssh}},
			{at: 1e9, mount: next, open: []listening.Port{local, ssh}, release: []uint16{22}},
			{at: 9e9, mount: next, open: []listening.Port{local, ssh}},
		},
		"a socket of IPv6 serves both": {
			{at: 1, mount: next, open: []listening.Port{web6, ssh}},
			{at: 1e9, mount: next, open: []listening.Port{web6, ssh}, release: []uint16{80, 22}},
		},
		"nothing stops, and then it does": {
			{at: 1, mount: old, services: up, open: all},
			{at: 14e9, mount: old, services: up, open: all},
			{at: 16e9, mount: old, services: up, open: all, release: []uint16{80, 22}},
			{at: 20e9, mount: old, services: up, open: all},
			{at: 21e9, mount: old, services: up[:1], open: all, hold: []uint16{80, 22}},
			{at: 22e9, mount: old, services: nil, open: []listening.Port{ssh}},
			{at: 40e9, mount: next, services: nil, open: all},
			{at: 41e9, mount: next, services: nil, open: all, release: []uint16{80, 22}},
		},
		"it stops slowly": {
			{at: 1, mount: old, services: up[:1], open: all, queued: true},
			{at: 100e9, mount: old, services: up[:1], open: all, queued: true},
			{at: 101e9, mount: old, services: up[:1], open: all, release: []uint16{80, 22}}, // it is cancelled
		},
		"a service keeps ending, without a shutdown": {
			{at: 16e9, mount: old, services: up, open: all, release: []uint16{80, 22}},
			{at: 20e9, mount: old, services: up[:1], open: all, hold: []uint16{80, 22}},
			{at: 25e9, mount: old, services: up, open: all, release: []uint16{80, 22}},
			{at: 30e9, mount: old, services: up[:1], open: all, hold: []uint16{80, 22}},
			{at: 35e9, mount: old, services: up, open: all, release: []uint16{80, 22}},
			{at: 40e9, mount: old, services: up[:1], open: all, hold: []uint16{80, 22}},
			{at: 45e9, mount: old, services: up, open: all, release: []uint16{80, 22}},
			{at: 50e9, mount: old, services: up[:1], open: all},
			{at: 51e9, mount: old, services: up[:1], open: all, queued: true, hold: []uint16{80, 22}},
		},
		"a service ends in the next root": {
			{at: 1, mount: next, services: up, open: all},
			{at: 1e9, mount: next, services: up, open: all, release: []uint16{80, 22}},
			{at: 2e9, mount: next, services: up[:1], open: all},
		},
		"the switch is cancelled": {
			{at: 1, mount: old, services: up[:1], open: []listening.Port{ssh}},
			{at: 2, mount: old, services: up, open: all},
			{at: 1e9, mount: old, services: up, open: all, release: []uint16{80}},
		},
		"the next root is unhealthy": {
			{at: 1, mount: next, open: all},
			{at: 1e9, mount: next, open: all, release: []uint16{80, 22}},
			{at: 2e9, mount: next, open: []listening.Port{web4, web6}, hold: []uint16{22}},
			{at: 3e9, mount: next, open: []listening.Port{web4, web6}, queued: true, hold: []uint16{80}},
			{at: 4e9, mount: 3, open: nil, queued: true},
			{at: 5e9, mount: 3, open: all},
			{at: 6e9, mount: 3, open: all, release: []uint16{80, 22}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(0, []uint16{80, 22}, outage.Look{Mount: old, Services: up, Ports: all})
			for _, l := range looks {
				hold, _, release := w.see(l.at, outage.Look{Mount: l.mount, Services: l.services, Ports: l.open},
					l.queued)
				if !slices.Equal(hold, l.hold) || !slices.Equal(release, l.release) {
					t.Fatalf("at %v %v are held and %v released, want %v and %v", l.at, hold, release, l.hold, l.release)
				}
			}
		})
	}
}

// TestWatchRenews: a port stays held for as long as nobody listens, however long that takes.
func TestWatchRenews(t *testing.T) {
	w := newWatch(0, []uint16{80, 22}, outage.Look{Mount: 1, Ports: []listening.Port{tcp(80, 4), tcp(22, 4)}})
	var last time.Duration
	for now := time.Second; now < 10*time.Minute; now += time.Second {
		_, renew, _ := w.see(now, outage.Look{Mount: 2, Ports: []listening.Port{tcp(22, 4)}}, false)
		if slices.Contains(renew, 80) {
			last = now
		}
		if slices.Contains(renew, 22) || now-last >= Limit/2 {
			t.Fatalf("after %v, %v are renewed, the last time was %v", now, renew, last)
		}
	}
}
