package hold

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/pid1"
)

const nft, ipt = "nftables.service", "iptables.service"

// is returns a unit in a state.
func is(name, state string) pid1.UnitState {
	return pid1.UnitState{Name: name, Load: "loaded", Active: state}
}

// queued returns a unit in a state, with a job that waits.
func queued(name, state string) pid1.UnitState {
	u := is(name, state)
	u.Queued = true
	return u
}

func TestIsBack(t *testing.T) {
	gone := pid1.UnitState{Name: nft, Load: "not-found", Active: "inactive"}
	goneFailed := pid1.UnitState{Name: nft, Load: "not-found", Active: "failed"}
	for _, c := range []struct {
		name    string
		before  []string
		units   []pid1.UnitState
		started bool
		want    bool
	}{
		{"it runs", []string{nft}, []pid1.UnitState{is(nft, "active")}, false, true},
		{"it runs, and is about to stop", []string{nft}, []pid1.UnitState{queued(nft, "active")}, true, false},
		{"it is reloaded", []string{nft}, []pid1.UnitState{is(nft, "reloading")}, true, false},
		{"it stops", []string{nft}, []pid1.UnitState{is(nft, "deactivating")}, true, false},
		{"it starts", []string{nft}, []pid1.UnitState{is(nft, "activating")}, true, false},
		{"it is about to start", []string{nft}, []pid1.UnitState{queued(nft, "inactive")}, true, false},
		{"it is tried again", []string{nft}, []pid1.UnitState{queued(nft, "failed")}, true, false},
		{"it failed", []string{nft}, []pid1.UnitState{is(nft, "failed")}, true, false},
		{"it is not started", []string{nft}, []pid1.UnitState{is(nft, "inactive")}, false, false},
		{"it is not started, and all others are", []string{nft}, []pid1.UnitState{is(nft, "inactive")}, true, true},
		{"it is gone", []string{nft}, []pid1.UnitState{gone}, false, false},
		{"it is gone, and all others are started", []string{nft}, []pid1.UnitState{gone}, true, true},
		{"it is gone and had failed", []string{nft}, []pid1.UnitState{goneFailed}, false, false},
		{"it is gone and had failed, and all others are started", []string{nft}, []pid1.UnitState{goneFailed}, true, true},
		{"one of two", []string{nft, ipt}, []pid1.UnitState{is(nft, "active"), is(ipt, "inactive")}, false, false},
		{"both", []string{nft, ipt}, []pid1.UnitState{is(nft, "active"), is(ipt, "active")}, false, true},
		{"another one is about to start", []string{ipt}, []pid1.UnitState{queued(nft, "inactive"), is(ipt, "inactive")},
			true, false},
		{"another one failed", []string{ipt}, []pid1.UnitState{is(nft, "failed"), is(ipt, "active")}, false, true},
		{"it is about to be restarted", []string{nft},
			[]pid1.UnitState{is(nft, "active"), queued(pid1.RenewUnit, "inactive")}, false, false},
	} {
		a := answer{units: c.units, started: c.started}
		if got := a.isBack(c.before); got != c.want {
			t.Errorf("%s: nothing is waited for: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHasStarted(t *testing.T) {
	for _, c := range []struct {
		name    string
		manager pid1.Manager
		want    bool
	}{
		{"up", pid1.Manager{State: "running"}, true},
		{"up, with a unit that failed", pid1.Manager{State: "degraded"}, true},
		{"starting", pid1.Manager{State: "starting", Starting: []string{"a.service"}}, false},
		{"between two steps", pid1.Manager{State: "starting"}, false},
		{"as systemd 255 says", pid1.Manager{State: "running", Starting: []string{"a.service"}}, false},
		{"its health is checked", pid1.Manager{State: "starting", Starting: []string{pid1.ConfirmUnit}}, true},
		{"stopping", pid1.Manager{State: "stopping", SoftReboot: true}, false},
	} {
		if got := hasStarted(c.manager); got != c.want {
			t.Errorf("%s: started %v, want %v", c.name, got, c.want)
		}
	}
}

// TestFilter: a story of looks, each with what is done after it.
func TestFilter(t *testing.T) {
	const old, next, third = 1, 2, 3
	runs, starts, never := is(nft, "active"), queued(nft, "inactive"), is(nft, "inactive")
	type look struct {
		at       time.Duration
		mount    int
		stopping bool
		// answer is what PID 1 has said at that time, nil for nothing new, about the mount now, or an older one.
		answer  *pid1.UnitState
		about   int
		started bool
		want    step
	}
	for name, looks := range map[string][]look{
		"a switch": {
			{at: 1, mount: old, stopping: true, answer: &runs},
			{at: 1e9, mount: old, stopping: true, answer: &starts},
			{at: 2e9, mount: next},
			{at: 3e9, mount: next, answer: &starts},
			{at: 4e9, mount: next, answer: &runs},
			{at: 5.9e9, mount: next, answer: &runs},
			{at: 6e9, mount: next, answer: &runs, want: releaseAll},
			{at: 7e9, mount: next, answer: &runs},
		},
		"an answer of the old root that comes late": {
			{at: 1, mount: old, stopping: true},
			{at: 1e9, mount: next, answer: &runs, about: old},
			{at: 5e9, mount: next, answer: &runs, about: old},
			{at: 6e9, mount: next, answer: &runs},
			{at: 8e9, mount: next, answer: &runs, want: releaseAll},
		},
		"it is active for a moment": {
			{at: 1, mount: next},
			{at: 1e9, mount: next, answer: &runs},
			{at: 2e9, mount: next, answer: &starts},
			{at: 3.5e9, mount: next, answer: &runs},
			{at: 5.5e9, mount: next, answer: &runs, want: releaseAll},
		},
		"the new root does not start it": {
			{at: 1, mount: next, answer: &never},
			{at: 10e9, mount: next, answer: &never},
			{at: 11e9, mount: next, answer: &never, started: true},
			{at: 13e9, mount: next, answer: &never, started: true, want: releaseAll},
		},
		"the shutdown does not begin, and then it does": {
			{at: 1, mount: old, stopping: true, answer: &runs},
			{at: 14e9, mount: old, stopping: true, answer: &runs},
			{at: 16e9, mount: old, answer: &runs, want: holdAll}, // its limit begins anew
			{at: 18e9, mount: old, answer: &runs, want: releaseAll},
			{at: 60e9, mount: old, answer: &runs},
			{at: 61e9, mount: old, stopping: true, answer: &runs, want: holdAll},
		},
		"it stops before anything is known of a shutdown": {
			{at: 1, mount: next},
			{at: 1e9, mount: next, answer: &runs},
			{at: 3e9, mount: next, answer: &runs, want: releaseAll},
			{at: 10e9, mount: next, answer: &starts, want: holdAll},
		},
		"the host goes back": {
			{at: 1, mount: next},
			{at: 1e9, mount: next, answer: &runs},
			{at: 3e9, mount: next, answer: &runs, want: releaseAll},
			{at: 4e9, mount: third, want: holdAll},
			{at: 5e9, mount: third, answer: &runs},
			{at: 7e9, mount: third, answer: &runs, want: releaseAll},
		},
		"PID 1 does not answer any more": {
			{at: 1, mount: next},
			{at: 1e9, mount: next, answer: &runs},
			{at: 3e9, mount: next, want: releaseAll},
			{at: 60e9, mount: next},
		},
		"PID 1 answers late": {
			{at: 1, mount: next},
			{at: 20e9, mount: next},
			{at: 100e9, mount: next}, // it has expired
			{at: 101e9, mount: next, answer: &starts, want: holdAll},
		},
		"it takes its time": {
			{at: 1, mount: next, answer: &starts},
			{at: 15e9, mount: next, answer: &starts, want: holdAll},
			{at: 29e9, mount: next, answer: &starts},
			{at: 31e9, mount: next, answer: &starts, want: holdAll},
		},
		"the shutdown takes its time": {
			{at: 16e9, mount: old, stopping: true, want: holdAll},
			{at: 32e9, mount: old, stopping: true, want: holdAll},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &filter{before: []string{nft}, mount: old, held: true}
			for _, l := range looks {
				if l.answer != nil {
					about := l.mount
					if l.about != 0 {
						about = l.about
					}
					f.answer.Store(&answer{about, l.at, l.started, []pid1.UnitState{*l.answer}})
				}
				if got := f.see(l.at, l.mount, l.stopping); got != l.want {
					t.Fatalf("at %v: %v, want %v", l.at, got, l.want)
				}
			}
		})
	}
}

// systemd is a PID 1 that answers about one packet filter.
type systemd struct {
	machine.Units
	machine.Systemd
	filter pid1.UnitState

	mu    sync.Mutex // it is asked from another goroutine
	fault error
	asked int
}

// fails makes it fail from now on, and returns how often it was asked.
func (s *systemd) fails(fault error) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
	return s.asked
}

func (s *systemd) States(_ context.Context, names []string) ([]pid1.UnitState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	var list []pid1.UnitState
	for _, name := range names {
		u := pid1.UnitState{Name: name, Load: "not-found", Active: "inactive"}
		if name == s.filter.Name {
			u = s.filter
		}
		list = append(list, u)
	}
	return list, s.fault
}

func (*systemd) Active(context.Context) ([]keep.Active, error) { return nil, nil }

func (s *systemd) AskManager(context.Context) (pid1.Manager, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return pid1.Manager{State: "running"}, s.fault
}

// newFilteredHost returns a host with a packet filter and [switch] hold-firewall alone.
func newFilteredHost(t *testing.T, p *ports, s *systemd) *host.Host {
	h := newHost(t, p)
	h.Config.Switch.Hold, h.Config.Switch.HoldFirewall = nil, true
	h.Machine.Units, h.Machine.Systemd = s, s
	return h
}

// TestHoldsAll: all ports are held before the switch, until the packet filter is back, and again when it is away.
func TestHoldsAll(t *testing.T) {
	p, s := new(ports), &systemd{filter: is(nft, "active")}
	h := newFilteredHost(t, p, s)
	o := Begin(t.Context(), h, record.Switch{}, []string{"a.service", nft})
	if o == nil || p.all != Limit || len(p.held) > 0 {
		t.Fatalf("all are held for %v, and of the list %v", p.all, p.held)
	}
	now := h.Machine.Kernel.SinceBoot()
	see := func(later time.Duration, mount int) {
		a, err := askPID1(t.Context(), h.Machine, mount)
		if err != nil {
			t.Fatal(err)
		}
		a.at = now + later
		o.filter.answer.Store(a)
		o.See(a.at, outage.Look{Mount: mount})
	}
	s.filter = queued(nft, "inactive")
	see(time.Second, 2)
	if see(10*time.Second, 2); p.all != Limit {
		t.Error("nothing is held while the packet filter is away")
	}
	s.filter = is(nft, "active")
	see(11*time.Second, 2)
	if see(13*time.Second, 2); p.all != 0 || p.closed {
		t.Errorf("when the packet filter is back, all are held for %v, closed %v", p.all, p.closed)
	}
	if see(14*time.Second, 3); p.all != Limit {
		t.Error("nothing is held in another root")
	}
	p.fault = errors.New("the kernel says no")
	see(15*time.Second, 3)
	see(17*time.Second, 3)
	if !p.closed {
		t.Error("a fault leaves ports held")
	}
}

// TestHoldsNotAll: without a packet filter, or without the key, not all ports are held.
func TestHoldsNotAll(t *testing.T) {
	for name, c := range map[string]struct {
		wanted bool
		active []string
		listed bool
	}{
		"without the key":               {false, []string{nft}, true},
		"without a filter":              {true, []string{"a.service"}, true},
		"without a filter, and no list": {true, nil, false},
		"without the key, and no list":  {false, []string{nft}, false},
		"with a unit of a like name":    {true, []string{"nftables.timer"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(ports)
			h := newFilteredHost(t, p, &systemd{})
			h.Config.Switch.HoldFirewall = c.wanted
			if c.listed {
				h.Config.Switch.Hold = []string{"listening"}
			}
			o := Begin(t.Context(), h, record.Switch{}, c.active)
			if (o != nil) != c.listed || p.all != 0 {
				t.Errorf("it holds %v, and all for %v", o, p.all)
			}
			o.Ask(t.Context()) // returns at once
		})
	}
}

// TestHoldsBoth: the list and all ports are held and released apart.
func TestHoldsBoth(t *testing.T) {
	p := new(ports)
	h := newFilteredHost(t, p, &systemd{filter: is(nft, "active")})
	h.Config.Switch.Hold = []string{"listening"}
	o := Begin(t.Context(), h, record.Switch{}, []string{nft})
	if p.all != Limit || p.held[80] != Limit || p.drainedAt != 2 {
		t.Fatalf("all are held for %v, and of the list %v", p.all, p.held)
	}
	if o.End(); !p.closed {
		t.Error("in the end, ports are still held")
	}
}

// TestAsk: PID 1 is asked until the guard ends, and a fault of it leaves the last answer.
func TestAsk(t *testing.T) {
	p, s := new(ports), &systemd{filter: is(nft, "active")}
	h := newFilteredHost(t, p, s)
	o := Begin(t.Context(), h, record.Switch{}, []string{nft})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); o.Ask(ctx) }()
		time.Sleep(askPause / 2)
		a := o.filter.answer.Load()
		if a == nil || a.mount != 1 || !a.started || !slices.Contains(a.units, s.filter) {
			t.Fatalf("the answer is %+v", a)
		}
		fault := errors.New("systemd does not answer")
		s.fails(fault)
		time.Sleep(10 * askPause)
		if asked := s.fails(fault); o.filter.answer.Load() != a || asked != 11 {
			t.Errorf("after %d questions, the answer is %+v", asked, o.filter.answer.Load())
		}
		cancel()
		<-done
	})
}

func TestFirewallPlan(t *testing.T) {
	fate := func(unit string, f keep.Fate) keep.UnitFate { return keep.UnitFate{Unit: unit, Fate: f} }
	restarts, leaves := fate(nft, keep.Restarts), fate(ipt, keep.GoesAway)
	for _, c := range []struct {
		name           string
		fates          []keep.UnitFate
		systemd        int
		fault          error
		units, missing []string
		reason         string // a part of it
	}{
		{"one", []keep.UnitFate{restarts}, 257, nil, []string{nft}, nil, ""},
		{"one that goes away", []keep.UnitFate{leaves, restarts}, 257, nil, []string{ipt, nft}, []string{ipt}, ""},
		{"none", []keep.UnitFate{fate("ssh.service", keep.Restarts)}, 257, nil, nil, nil,
			"no packet filter is active; known are nftables.service, "},
		{"a new one", []keep.UnitFate{fate(nft, keep.IsNew)}, 257, nil, nil, nil, "no packet filter is active"},
		{"no nf_tables", []keep.UnitFate{leaves}, 257, errors.New("this kernel has no nf_tables"), nil, nil,
			"this kernel has no nf_tables; services may be reachable before the packet filter is back"},
		{"systemd 254", []keep.UnitFate{restarts}, 254, nil, nil, nil, "systemd 254 ends the guard"},
	} {
		p := &ports{fault: c.fault}
		got := FirewallPlanOf(newFilteredHost(t, p, nil), c.systemd, c.fates)
		if got == nil || got.Units == nil || !slices.Equal(got.Units, c.units) || !slices.Equal(got.Missing, c.missing) ||
			(got.Reason == "") != (c.reason == "") || !strings.HasPrefix(got.Reason, c.reason) {
			t.Errorf("%s: the plan is %+v", c.name, got)
		}
	}
	h := newFilteredHost(t, new(ports), nil)
	if got := PlanOf(h, 257, nil); got != nil {
		t.Errorf("without a list, its plan is %+v", got)
	}
	h.Config.Switch.HoldFirewall = false
	if got := FirewallPlanOf(h, 257, []keep.UnitFate{restarts}); got != nil {
		t.Errorf("without the key, the plan is %+v", got)
	}
}
