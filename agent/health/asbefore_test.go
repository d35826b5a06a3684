package health

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/systemd"
)

// TestAsBefore: what ran and listened before the switch is compared with what does now.
func TestAsBefore(t *testing.T) {
	wanted := systemd.Details{Exists: true, WantedBy: []string{"multi-user.target"}}
	up := func(names ...string) []systemd.Unit {
		list := []systemd.Unit{{Name: "multi-user.target", Load: "loaded", Active: "active"}}
		for _, n := range names {
			list = append(list, service(n, "active", "running"))
		}
		return list
	}
	ssh4 := listening.Port{Protocol: "tcp", Family: 4, Number: 22, Unit: "ssh.service"}
	ssh6 := listening.Port{Protocol: "tcp", Family: 6, Number: 22, Unit: "ssh.service"}
	forwarded := listening.Port{Protocol: "tcp", Family: 4, Number: 6010, Local: true, Unit: "ssh.service"}
	web := listening.Port{Protocol: "tcp", Family: 4, Number: 80, Unit: "web.service"}
	for name, c := range map[string]struct {
		before  Before
		units   []systemd.Unit
		details map[string]systemd.Details
		ports   []listening.Port
		ignore  []string
		want    string // the verdicts; "" for nothing compared
	}{
		"nothing was observed": {units: up("ssh")},
		"nobody knows": {
			before: Before{Running: []string{"ssh.service"}, Unknown: true}, units: up(),
		},
		"as before": {
			before: Before{Running: []string{"ssh.service", "web.service"}, Ports: []listening.Port{ssh4, ssh6, web}},
			units:  up("ssh", "web"), ports: []listening.Port{ssh4, ssh6, web},
			want: "services as before ok, ways in ok, ports as before ok",
		},
		"sshd is gone": {
			before: Before{Running: []string{"ssh.service"}}, units: up("web"),
			want: "services as before warn, ways in fail, ports as before ok",
		},
		"sshd is gone, which does not matter here": {
			before: Before{Running: []string{"ssh.service"}}, units: up("web"), ignore: []string{"ssh.service"},
			want: "services as before ok, ways in ok, ports as before ok",
		},
		"sshd has another name": {
			before: Before{Running: []string{"ssh.service"}}, units: up("sshd"),
			want: "services as before warn, ways in ok, ports as before ok",
		},
		"sshd only listens for this host": {
			before: Before{Running: []string{"ssh.service"}, Ports: []listening.Port{ssh4}}, units: up("ssh"),
			ports: []listening.Port{{Protocol: "tcp", Family: 4, Number: 22, Local: true, Unit: "ssh.service"}},
			want:  "services as before ok, ways in fail, ports as before warn",
		},
		"sshd listens over IPv4 only": {
			before: Before{Running: []string{"ssh.service"}, Ports: []listening.Port{ssh4, ssh6}}, units: up("ssh"),
			ports: []listening.Port{ssh4},
			want:  "services as before ok, ways in ok, ports as before warn",
		},
		"somebody had forwarded a port to this host": { // without pam_systemd, a session is in the cgroup of sshd
			before: Before{Running: []string{"ssh.service"}, Ports: []listening.Port{ssh4, forwarded}}, units: up("ssh"),
			ports: []listening.Port{ssh4}, want: "services as before ok, ways in ok, ports as before warn",
		},
		"a socket unit listens for sshd": {
			before: Before{Running: []string{"ssh.service"}, Ports: []listening.Port{ssh4}},
			units:  append(up(), systemd.Unit{Name: "ssh.socket", Load: "loaded", Active: "active", Sub: "listening"}),
			details: map[string]systemd.Details{
				"ssh.service": {Exists: true, TriggeredBy: []string{"ssh.socket"}, WantedBy: []string{"multi-user.target"}},
			},
			want: "services as before ok, ways in ok, ports as before ok",
		},
		"the root starts it, and it does not run": {
			before: Before{Running: []string{"web.service"}, Ports: []listening.Port{web}}, units: up("ssh"),
			details: map[string]systemd.Details{"web.service": wanted},
			want:    "services as before fail, ways in ok, ports as before ok",
		},
		"the root does not have it": {
			before: Before{Running: []string{"web.service"}}, units: up("ssh"),
			want: "services as before warn, ways in ok, ports as before ok",
		},
		"the root does not start it": {
			before: Before{Running: []string{"web.service"}}, units: up("ssh"),
			details: map[string]systemd.Details{"web.service": {Exists: true, WantedBy: []string{"graphical.target"}}},
			want:    "services as before warn, ways in ok, ports as before ok",
		},
		"a condition does not hold": {
			before: Before{Running: []string{"web.service"}}, units: up("ssh"),
			details: map[string]systemd.Details{"web.service": {Exists: true, Declined: true, WantedBy: wanted.WantedBy}},
			want:    "services as before warn, ways in ok, ports as before ok",
		},
		"it ended well": {
			before: Before{Running: []string{"web.service"}}, units: up("ssh"),
			details: map[string]systemd.Details{"web.service": {Exists: true, Ended: time.Hour, WantedBy: wanted.WantedBy}},
			want:    "services as before warn, ways in ok, ports as before ok",
		},
		"it ended well in the root before": {
			before: Before{Running: []string{"web.service"}}, units: up("ssh"),
			details: map[string]systemd.Details{"web.service": {Exists: true, Ended: time.Second, WantedBy: wanted.WantedBy}},
			want:    "services as before fail, ways in ok, ports as before ok",
		},
		"somebody had started it for once": {
			before: Before{Running: []string{"by-hand.service"}}, units: up("ssh"),
			details: map[string]systemd.Details{"by-hand.service": {Exists: true, Transient: true}},
			want:    "services as before ok, ways in ok, ports as before ok",
		},
		"it starts when somebody asks on the bus": {
			before: Before{Running: []string{"polkit.service"}}, units: up("ssh"),
			details: map[string]systemd.Details{"polkit.service": {Exists: true, OnBus: true}},
			want:    "services as before ok, ways in ok, ports as before ok",
		},
		"the image changed a port": {
			before: Before{Running: []string{"web.service"}, Ports: []listening.Port{web}}, units: up("web"),
			want: "services as before ok, ways in ok, ports as before warn",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := gate(t, &machine{units: c.units})
			g.Since, g.Config.Ignore = time.Minute, c.ignore
			g.Systemd.Details = func(_ context.Context, unit string) (systemd.Details, error) { return c.details[unit], nil }
			g.Ports = func() ([]listening.Port, error) { return c.ports, nil }
			var got string
			for _, r := range asBefore(t.Context(), g, c.before) {
				if got != "" {
					got += ", "
				}
				got += r.Name + " " + string(r.Verdict)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestObserveRunning: what users run, what has done its work, and the agent's own are not noted.
func TestObserveRunning(t *testing.T) {
	g := gate(t, &machine{units: []systemd.Unit{
		service("ssh", "active", "running"), service("networking", "active", "exited"),
		service("confirm", "active", "running"),
		service("user@1000", "active", "running"), service("app", "activating", "auto-restart"),
		{Name: "dbus.socket", Active: "active", Sub: "running"}, {Name: "backup.timer", Active: "active", Sub: "waiting"},
	}})
	g.Ports = func() ([]listening.Port, error) {
		return []listening.Port{{Number: 22, Unit: "ssh.service"}, {Number: 8080, Unit: "user@1000.service"},
			{Number: 9000, Unit: "docker-0123.scope"}}, nil
	}
	b := Observe(t.Context(), g)
	if len(b.Running) != 2 || b.Running[0] != "ssh.service" || b.Running[1] != "dbus.socket" || len(b.Ports) != 1 ||
		b.Ports[0].Number != 22 {
		t.Errorf("observed %+v", b)
	}
}

// TestObserveMany: where there are more services than are noted, the ways in are noted.
func TestObserveMany(t *testing.T) {
	var units []systemd.Unit
	var ports []listening.Port
	for n := range 2 * maxCompared {
		units = append(units, service(fmt.Sprintf("app-%d", n), "active", "running"))
		ports = append(ports, listening.Port{Protocol: "tcp", Number: 1000 + n, Unit: "app.service"})
	}
	g := gate(t, &machine{units: append(units, service("ssh", "active", "running"))})
	g.Ports = func() ([]listening.Port, error) {
		return append(ports, listening.Port{Protocol: "tcp", Number: 2222, Unit: "ssh.service"}), nil
	}
	b := Observe(t.Context(), g)
	if len(b.Running) != maxCompared || b.Running[0] != "ssh.service" || b.Running[1] != "app-0.service" {
		t.Errorf("noted are %d units: %q …", len(b.Running), b.Running[:2])
	}
	if len(b.Ports) != maxCompared || b.Ports[0].Number != 2222 {
		t.Errorf("noted are %d ports: %v …", len(b.Ports), b.Ports[0])
	}
}

// TestByChance: what a timer starts in the window, or somebody made at run time, neither fails a root nor delays it.
func TestByChance(t *testing.T) {
	g := gate(t, &machine{starting: []string{"apt-daily.service"}, units: []systemd.Unit{
		service("logrotate", "failed", "failed"), service("by-hand", "failed", "failed"),
	}})
	g.Systemd.Details = func(_ context.Context, unit string) (systemd.Details, error) {
		return systemd.Details{Exists: true, Transient: unit == "by-hand.service",
			TriggeredBy: []string{strings.TrimSuffix(unit, "service") + "timer"}}, nil
	}
	r := g.Run(t.Context(), Before{})
	if !r.Healthy() || verdicts(r, KindUnits) != "restarts ok, failed units warn" {
		t.Errorf("the report is %+v", r)
	}
	g.Systemd.Details = func(context.Context, string) (systemd.Details, error) {
		return systemd.Details{Exists: true, WantedBy: []string{"multi-user.target"}, TriggeredBy: []string{"x.timer"}}, nil
	}
	g.Config.Deadline = 100 * time.Millisecond
	if r := g.Run(t.Context(), Before{}); r.Healthy() {
		t.Error("what the root itself starts does not count because a timer starts it, too")
	}
}
