//go:build lab && fleet

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestFleetOfFive: the timers of five hosts, which share one slot, take a release inside the window, one host at a
// time. A bad release stops at the first host, and a fixed one goes through, although one host, etcd, the registry and
// the lock server are away for a while.
func TestFleetOfFive(t *testing.T) {
	beside(t, lab.Nspawn)
	f := newFleetOf(t, 5)
	first := f.hosts[0]
	f.opens(time.Now().Add(12 * time.Hour))
	f.each("has staged the image and waits for the window", func(v member) bool {
		return v.Staged != nil && v.Unattended.Reason == "window"
	})
	f.opens(time.Now().Add(-130 * time.Minute)) // each host has its own time in the first half
	f.allRun(first.roots["1"])

	first.publish("2", "os/server:stable") // which no host finds healthy
	f.each("has failed, or waits for the one that has", func(v member) bool {
		return v.failed() || v.Unattended.Reason == "lock"
	})
	f.waits(3 * time.Minute) // the timers look six times
	failed := 0
	for _, s := range f.hosts {
		v, ok := f.look(s)
		if !ok || v.Booted.Root != first.roots["1"] || v.failed() != (len(v.Bad) > 0) {
			t.Errorf("with a bad release, %s is %+v", s.host.Name, v)
		}
		if v.failed() {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d hosts have taken the bad release, want 1", failed)
	}

	first.publish("3", "os/server:stable") // the host with the slot takes it, and gives the slot back
	last, cut := f.hosts[4].host, lab.Outage{}
	for what, away := range map[string]struct{ goes, comes func() error }{
		"a host":          {func() error { return last.SetLink(false) }, func() error { return last.SetLink(true) }},
		"etcd":            {func() error { f.etcd.Stop(); return nil }, f.etcd.Start},
		"the registry":    {func() error { first.registry.Stop(); return nil }, first.registry.Start},
		"the lock server": {func() error { f.locks.Stop(); return nil }, f.locks.Start},
	} {
		began := time.Now()
		if err := away.goes(); err != nil {
			t.Fatal(err)
		}
		f.waits(40 * time.Second)
		if err := away.comes(); err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s was away", what); what == "a host" {
			cut = lab.Outage{From: began.Add(-time.Second), To: time.Now()}
		}
	}
	f.allRun(first.roots["3"])
	f.oneAtATime(cut)
}

// fleetOf is some hosts with one source and one lock server.
type fleetOf struct {
	*testing.T
	hosts  []*site
	probes []*lab.Probe
	etcd   *lab.Etcd
	locks  *lab.FleetLock
}

// newFleetOf boots hosts that look twice a minute whether there is something to do.
func newFleetOf(t *testing.T, size int) *fleetOf {
	t.Helper()
	f := &fleetOf{T: t}
	var err error
	if f.etcd, err = lab.StartEtcd(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.etcd.Stop() })
	if f.locks, err = lab.StartFleetLock(t.Context(), f.etcd, 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.locks.Stop() })
	first := newSite(t, "five1")
	for i := range size {
		s := *first
		if i > 0 {
			s.boot(lab.Options{Name: fmt.Sprintf("five%d", i+1)}, nil)
		}
		s.hastens("[health]\ndeadline = \"90s\"\nsettle = \"1s\"\n" + fmt.Sprintf("[fleetlock]\nurl = %q\n", f.locks.URL))
		s.program("/etc/updatectl/health.d/required.d/version", "#!/bin/sh\n! grep -q 2 /usr/share/lab/version\n")
		s.program("/etc/systemd/system/updatectl.timer.d/often.conf",
			"[Timer]\nOnCalendar=\nOnCalendar=*:*:0/30\nRandomizedDelaySec=0\nAccuracySec=1s\n")
		s.host.Must(t, "sh", "-ec", "chmod 644 /etc/systemd/system/updatectl.timer.d/often.conf; systemctl daemon-reload")
		f.hosts, f.probes = append(f.hosts, &s), append(f.probes, s.host.NewProbe(t))
	}
	return f
}

// opens has every host switch in a window of four hours from a time, and starts its timer.
func (f *fleetOf) opens(at time.Time) {
	f.Helper()
	text := fmt.Sprintf("[schedule]\nswitch = [%q]\nlength = \"4h\"\n", at.UTC().Format("2006-01-02 15:04:05 UTC"))
	for _, s := range f.hosts {
		if err := s.host.WriteFile("/etc/updatectl/conf.d/70-window.toml", text, 0o644); err != nil {
			f.Fatal(err)
		}
		s.host.Must(f.T, "systemctl", "enable", "--now", "updatectl.timer")
	}
}

// member is the part of a host's status that is about the fleet.
type member struct {
	Phase      string
	Booted     struct{ Root string }
	Bad        map[string]struct{}
	Staged     *struct{ Root string }
	Slot       *struct{ Wants, Failed string }
	Unattended *struct{ Reason string }
}

func (m member) failed() bool { return m.Slot != nil && m.Slot.Failed != "" }

// look returns the status of a host, and false while the host has none.
func (f *fleetOf) look(s *site) (m member, ok bool) {
	r := s.host.Run(f.Context(), "timeout", "30", "updatectl", "--output", "json", "status")
	ok = r.Code == exitDone && json.Unmarshal([]byte(r.Stdout), &m) == nil && m.Unattended != nil
	return m, ok
}

// each waits until a condition is true for each host.
func (f *fleetOf) each(what string, holds func(member) bool) {
	f.Helper()
	start := time.Now()
	for _, s := range f.hosts {
		var m member
		for ok := false; !ok; time.Sleep(time.Second) {
			if m, ok = f.look(s); time.Since(start) > 25*time.Minute {
				f.Fatalf("not every host %s: %s is %+v\n%s", what, s.host.Name, m, s.host.Console())
			}
			ok = ok && holds(m)
		}
	}
	f.Logf("every host %s after %v", what, time.Since(start).Round(time.Second))
}

// allRun waits until every host runs a root, and none has a slot.
func (f *fleetOf) allRun(root string) {
	f.Helper()
	f.each("runs "+short(root), func(m member) bool {
		return m.Booted.Root == root && m.Phase == "good" && m.Slot == nil
	})
}

// waits lets the fleet alone for a while.
func (f *fleetOf) waits(long time.Duration) {
	select {
	case <-time.After(long):
	case <-f.Context().Done():
		f.Fatal(f.Context().Err())
	}
}

// oneAtATime expects that no two hosts were away at the same time, but for the one that was cut off, and that each
// switched as often as it had to: there and to the fixed release, and one also to the bad one and back.
func (f *fleetOf) oneAtATime(cut lab.Outage) {
	f.Helper()
	var all []lab.Outage
	for i, p := range f.probes {
		p.Stop()
		outages := p.Outages()
		f.Logf("%s was away %d times: %v", f.hosts[i].host.Name, len(outages), outages)
		all = append(all, slices.DeleteFunc(outages, func(o lab.Outage) bool {
			late := o.Failures == 1 // one answer of a busy machine; a switch fails a client every few milliseconds
			return late || i == len(f.probes)-1 && o.From.After(cut.From) && o.From.Before(cut.To)
		})...)
	}
	slices.SortFunc(all, func(a, b lab.Outage) int { return a.From.Compare(b.From) })
	for i := range len(all) - 1 {
		if all[i+1].From.Before(all[i].To) {
			f.Errorf("two hosts were away at %v", all[i+1].From)
		}
	}
	if want := 2*len(f.hosts) + 2; len(all) != want {
		f.Errorf("the hosts were away %d times, want %d", len(all), want)
	}
}
