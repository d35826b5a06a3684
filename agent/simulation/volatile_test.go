package simulation

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/switcher/level"
)

// onCopy are the options of a person who tries a root.
func onCopy() agent.ApplyOptions { return agent.ApplyOptions{Volatile: true, Level: level.Soft} }

// TestVolatile: a root is tried on a copy of the state, found healthy and left. The host has it neither as a good root
// nor as a bad one, and the timer takes it afterwards, for good.
func TestVolatile(t *testing.T) {
	for _, o := range versions() {
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Healthy)
			if err := m.Apply(onCopy()).Wait(); err != nil {
				t.Error(err)
			}
			m.rest()
			m.CheckRest()
			rec := m.Record()
			if m.Booted() != "v2" || !m.Volatile() || rec.Healthy != rec.Switch.Target ||
				m.publisher.name(rec.LastGood()) != "v1" {
				t.Errorf("%s runs, volatile %v; the last good root is %s, the switch %+v", m.Booted(), m.Volatile(),
					m.publisher.name(rec.LastGood()), rec.Switch)
			}
			for name, err := range map[string]error{
				"the timer": unattended(m), "apply": m.Apply(agent.ApplyOptions{}).Wait(),
				"a trial in the trial": m.Apply(onCopy()).Wait(),
				"switch":               m.SwitchTo("v1", agent.ApplyOptions{}).Wait(),
			} {
				if !errors.Is(err, volatile.ErrRuns) {
					t.Errorf("%s in a volatile root: %v", name, err)
				}
			}
			m.rest()
			if err := m.RollBack("").Wait(); err != nil {
				t.Error(err)
			}
			m.rest()
			m.CheckRest()
			if rec := m.Record(); m.Booted() != "v1" || m.Volatile() || len(rec.Bad) > 0 || m.Used("v2") {
				t.Errorf("%s runs, volatile %v; bad are %v; v2 had the state itself: %v", m.Booted(), m.Volatile(), rec.Bad,
					m.Used("v2"))
			}
			unattended(m)
			m.rest()
			m.CheckRest()
		})
		expect(t, m, "v2")
		if m.Volatile() || !m.Used("v2") {
			t.Error("the timer's root is volatile")
		}
	}
}

// TestVolatileFullReboot: a volatile root ends with the kernel, by a power cut or on purpose, healthy or not judged
// yet: the host resumes its last good root.
func TestVolatileFullReboot(t *testing.T) {
	for name, end := range map[string]func(m *Machine){
		"power cut":          func(m *Machine) { m.rest(); m.CutPower() },
		"full reboot":        func(m *Machine) { m.rest(); m.Reboot(true) },
		"before the verdict": func(m *Machine) { awaitPhase(m, record.PhaseTrying); m.CutPower() },
		"while it is armed":  func(m *Machine) { m.CutPower() },
	} {
		t.Run(name, func(t *testing.T) {
			m := playFrom(t, "v1", ordinary(), func(m *Machine) {
				m.Publish("v2", Healthy)
				if err := m.Apply(onCopy()).Wait(); err != nil {
					t.Error(err)
				}
				end(m)
				m.rest()
				m.CheckRest()
			})
			expect(t, m, "v1")
			if m.Volatile() || m.Used("v2") {
				t.Errorf("volatile %v; v2 had the state itself: %v", m.Volatile(), m.Used("v2"))
			}
		})
	}
}

func awaitPhase(m *Machine, p record.Phase) {
	for m.Record().Phase != p {
		time.Sleep(100 * time.Millisecond)
	}
}

// TestVolatileIll: a volatile root that is ill is left as any other, and given up.
func TestVolatileIll(t *testing.T) {
	for _, ill := range Illnesses {
		if ill.good() || ill == NeedsFull {
			continue
		}
		t.Run(string(ill), func(t *testing.T) {
			m := playFrom(t, "v1", ordinary(), func(m *Machine) {
				m.Publish("v2", ill)
				m.Apply(onCopy()).Wait()
				m.rest()
				m.Heal()
				if m.Booted() == "v2" { // it ends the guard, and nobody is left who could leave it
					m.RollBack("").Wait()
					m.rest()
				}
				m.CheckRest()
			})
			expect(t, m, "v1")
			if m.Used("v2") {
				t.Error("v2 had the state itself")
			}
		})
	}
}

// TestVolatileRefused: what is not to be had on a copy is refused, and nothing moves.
func TestVolatileRefused(t *testing.T) {
	m := playFrom(t, "v2", ordinary(), func(m *Machine) {
		m.Publish("v2", Healthy)
		if err := m.Apply(onCopy()).Wait(); !errors.Is(err, volatile.ErrNot) {
			t.Errorf("the root that runs: %v", err)
		}
		m.Publish("v3", Healthy)
		m.Stage().Wait()
		m.StayOnHost(true)
		m.CutPower()
		m.rest()
		if err := m.SwitchTo("v2", onCopy()).Wait(); !errors.Is(err, volatile.ErrNot) {
			t.Errorf("the last good root: %v", err)
		}
		o := onCopy()
		o.Level = level.Full
		if err := m.SwitchTo("v3", o).Wait(); !errors.Is(err, volatile.ErrNot) {
			t.Errorf("a full reboot: %v", err)
		}
		m.rest()
		if m.Booted() != "host" {
			t.Errorf("%s runs", m.Booted())
		}
	})
	expect(t, m, "host")
}

// TestVolatileFormerlyGood: a root that was good is tried on a copy, and is afterwards good as it was, with its /etc.
func TestVolatileFormerlyGood(t *testing.T) {
	m := playFrom(t, "v3", ordinary(), func(m *Machine) {
		good := slices.Clone(m.Record().Good)
		if err := m.SwitchTo("v2", onCopy()).Wait(); err != nil {
			t.Error(err)
		}
		m.rest()
		if m.Booted() != "v2" || !m.Volatile() || !slices.Equal(m.Record().Good, good) {
			t.Errorf("%s runs, volatile %v; good are %v, were %v", m.Booted(), m.Volatile(), m.Record().Good, good)
		}
		m.RollBack("").Wait()
		m.rest()
		m.CheckRest()
		if m.Booted() != "v3" || !slices.Equal(m.Record().Good, good) {
			t.Errorf("%s runs; good are %v, were %v", m.Booted(), m.Record().Good, good)
		}
		m.RollBack("v2").Wait()
		m.rest()
		m.CheckRest()
	})
	expect(t, m, "v2")
}

// TestVolatileInterrupted: wherever a trial and its end are interrupted, the root that is tried never has the state
// itself, and never becomes good.
func TestVolatileInterrupted(t *testing.T) {
	for _, f := range []Fault{Kill, PowerCut} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			stride := 7
			if *every {
				stride = 1
			}
			n := 1
			for ; ; n += stride {
				struck := false
				if !t.Run(fmt.Sprint(n), func(t *testing.T) { struck = interruptTrial(t, f, n) }) || !struck {
					break
				}
			}
			if n < 60 {
				t.Errorf("only %d crossings of the seam", n)
			}
		})
	}
}

func interruptTrial(t *testing.T, f Fault, at int) (struck bool) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", Healthy)
		m.Stage().Wait()
		m.Publish("v1", Healthy) // or the timer would take v2, for good
		m.Strike(f, at)
		m.SwitchTo("v2", onCopy()).Wait()
		m.rest()
		m.RollBack("").Wait()
		m.rest()
		struck = m.Struck()
		m.Heal()
		m.tire()
		m.CheckRest()
		if m.Volatile() { // the person who rolled back was not heard
			m.RollBack("").Wait()
			m.rest()
			m.CheckRest()
		}
	})
	// Before anything is done, the person rolls back from v1, to the host root.
	if booted := m.Booted(); booted != "v1" && booted != "host" {
		t.Errorf("%s runs", booted)
	}
	if m.Volatile() || m.Used("v2") || slices.Contains(m.Record().Good, releases.roots["v2"]) {
		t.Errorf("volatile %v; v2 had the state itself: %v; good are %v", m.Volatile(), m.Used("v2"), m.Record().Good)
	}
	expect(t, m, m.Booted())
	return struck
}
