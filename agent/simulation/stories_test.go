package simulation

import (
	"errors"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// TestStranded: where a full reboot left the host on its host root and what is published cannot be switched to, the
// timer brings it to its last good root.
func TestStranded(t *testing.T) {
	for _, c := range []struct {
		ill      Illness
		fallback string
	}{{NeedsFull, "refuse"}, {Unacceptable, "refuse"}, {Unjoinable, "full"}, {Unmergeable, "full"}, {FallsBack, "full"}} {
		t.Run(string(c.ill), func(t *testing.T) {
			o := ordinary()
			o.Fallback = c.fallback
			m := playFrom(t, "v1", o, func(m *Machine) {
				m.Publish("v2", c.ill)
				m.StayOnHost(true)
				m.CutPower()
				m.rest()
				m.StayOnHost(false)
				if m.Booted() != "host" {
					t.Errorf("%s runs", m.Booted())
				}
				m.tire()
				m.CheckRest()
			})
			expect(t, m, "v1")
		})
	}
}

// TestSlowArming: a switch whose root could not be armed has failed, however long the arming took; the guard does not
// take it for one that was never asked for.
func TestSlowArming(t *testing.T) {
	for slow := 44 * time.Second; slow < 50*time.Second; slow += 500 * time.Millisecond { // when the guard's patience ends
		m := playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.Publish("v2", Unjoinable)
			m.SlowArming(slow)
			m.Apply(agent.ApplyOptions{Unattended: true}).Wait()
			m.rest()
			if f := m.Record().Failed[releases.roots["v2"]]; f.Times != 1 {
				t.Errorf("the switch is counted as %+v", f)
			}
			m.CheckRest()
		})
		expect(t, m, "v1")
	}
}

// TestConfirmBeginsAnew: a rollback that ended confirm and was refused itself, by a PID 1 that did not answer, leaves
// nobody who judges the root. The next apply has it judged.
func TestConfirmBeginsAnew(t *testing.T) {
	for _, later := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond,
		time.Second} {
		resets := 0
		m := playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.Publish("v2", CutsNetwork)
			unattended(m)
			for r := m.Record(); r.Phase != record.PhaseTrying || r.Switch.Verb != record.VerbBack; r = m.Record() {
				time.Sleep(100 * time.Millisecond) // until v1 is judged, cut off as it is
			}
			m.RollBack("host")
			time.Sleep(later)
			m.Deafen(3 * time.Minute)
			time.Sleep(4 * time.Minute)
			resets = m.rest() + m.tire()
			m.CheckRest()
		})
		if resets > 0 {
			t.Errorf("%v later: a person had to reset the machine", later)
		}
		if booted := m.Booted(); booted != "v1" && booted != "host" {
			t.Errorf("%v later: %s runs", later, booted)
		}
		expect(t, m, m.Booted())
	}
}

// TestGuardIsOvertaken: a root that became good while the guard waited for an answer of PID 1 is not rolled back from.
func TestGuardIsOvertaken(t *testing.T) {
	for later := 30 * time.Second; later < 60*time.Second; later += 300 * time.Millisecond {
		o := ordinary()
		o.Seed = uint64(later)
		m := playFrom(t, "v3", o, func(m *Machine) {
			m.Publish("v4", Deafens)
			unattended(m)
			time.Sleep(later)
			m.Heal()
			m.rest()
			m.tire()
			m.CheckRest()
		})
		expect(t, m, m.Booted()) // v4 where it had the time to become good
	}
}

// TestFormerEtc: a root that was good, is applied again and cannot be armed keeps the /etc that it was good with: a
// rollback to it comes up with that one.
func TestFormerEtc(t *testing.T) {
	m := playFrom(t, "v3", ordinary(), func(m *Machine) {
		m.Infect("v2", Unjoinable)
		m.Apply(agent.ApplyOptions{Wait: true, AllowDowngrade: true, From: releases.reference("v2")}).Wait()
		m.rest()
		m.CheckRest()
		m.Infect("v2", Healthy)
		m.RollBack("v2").Wait()
		m.rest()
		m.CheckRest()
	})
	expect(t, m, "v2")
}

// TestRefused: a switch that logind refuses leaves nothing in the record: no switch under way, and no attempt.
func TestRefused(t *testing.T) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", Healthy)
		m.Inhibit(true)
		if err := m.Apply(agent.ApplyOptions{}).Wait(); !errors.Is(err, record.ErrBlocked) {
			t.Errorf("apply ends with %v, want that it is blocked", err)
		}
		if r := m.Record(); r.Moving() || len(r.Attempts) > 0 {
			t.Errorf("the record says that it is %s, with the attempts %v", r.Phase, r.Attempts)
		}
	})
	expect(t, m, "v1")
}

// TestCancelledWhileArming: a switch that the guard cancels while its root is being armed does not happen, and nothing
// stays armed for the next reboot.
func TestCancelledWhileArming(t *testing.T) {
	cancelled := 0
	for slow := 10 * time.Second; slow < 18*time.Second; slow += 50 * time.Millisecond {
		m := playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.Publish("v2", Healthy)
			m.SlowArming(slow)
			m.Apply(agent.ApplyOptions{Unattended: true}).Wait()
			m.rest()
			m.CheckRest()
			if m.Booted() == "v1" {
				cancelled++
			}
		})
		expect(t, m, m.Booted())
	}
	if cancelled == 0 {
		t.Error("the guard cancelled nothing: this shows nothing")
	}
}

// TestRollbackIsWanted: a root that somebody rolled back to is kept although it is unhealthy, unless the host is cut
// off.
func TestRollbackIsWanted(t *testing.T) {
	for ill, want := range map[Illness]string{Fails: "v1", CutsNetwork: "v2"} {
		m := playFrom(t, "v2", ordinary(), func(m *Machine) {
			m.Infect("v1", ill)
			m.RollBack("v1").Wait()
			m.rest()
			m.Heal()
			m.CheckRest()
		})
		expect(t, m, want)
	}
}
