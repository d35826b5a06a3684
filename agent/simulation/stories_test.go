package simulation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	operator "github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/simulation/disk"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/testtree"
	"github.com/updatectl/updatectl/verify"
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

// TestStrandedAndPaused: a pause does not keep a host from its last good root, and still keeps it from a newer one.
func TestStrandedAndPaused(t *testing.T) {
	for _, published := range []string{"v1", "v2"} {
		m := playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.Publish(published, Healthy)
			m.StayOnHost(true)
			m.CutPower()
			m.rest()
			m.StayOnHost(false)
			if err := m.Run("pause", false, func(_ context.Context, a *agent.Agent) error {
				_, err := operator.Set(a.Host, operator.Pause{Reason: "holidays"})
				return err
			}).Wait(); err != nil {
				t.Error(err)
			}
			m.tire()
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

// TestStayed: who wanted to leave a root for an older one, which could not be armed, has not left it.
func TestStayed(t *testing.T) {
	for name, leave := range map[string]func(m *Machine) *Command{
		"apply": func(m *Machine) *Command {
			return m.Apply(agent.ApplyOptions{Wait: true, AllowDowngrade: true, From: releases.reference("v2")})
		},
		"switch": func(m *Machine) *Command { return m.SwitchTo("v2", agent.ApplyOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			m := playFrom(t, "v3", ordinary(), func(m *Machine) {
				m.Infect("v2", Unjoinable)
				if err := leave(m).Wait(); err != nil {
					t.Error(err)
				}
				m.rest()
				m.CheckRest()
				unattended(m)
				m.rest()
				if bad := m.Record().Bad; len(bad) > 0 {
					t.Errorf("bad are %+v", bad)
				}
			})
			expect(t, m, "v3")
		})
	}
}

// TestSwitchTo: a person goes from root to root, in both directions and at both levels. The timer undoes none of that,
// and no root goes: neither the one that is left, nor one that was staged for later.
func TestSwitchTo(t *testing.T) {
	for _, l := range []level.Level{level.Soft, level.Full} {
		for _, seed := range []uint64{1, 2} { // of v2 and v3, one has the modules of the kernel
			o := ordinary()
			o.Seed = seed
			m := playFrom(t, "v3", o, func(m *Machine) {
				m.Publish("v4", Healthy)
				m.Stage().Wait()
				for _, version := range []string{"v2", "v3", "v2"} {
					if err := m.SwitchTo(version, agent.ApplyOptions{Level: l}).Wait(); err != nil {
						t.Errorf("to %s: %v", version, err)
					}
					m.rest()
					m.CheckRest()
					if got, staged := m.Booted(), m.publisher.name(m.Record().Staged); got != version || staged != "v4" {
						t.Errorf("%s runs, and %s is staged, want %s and v4", got, staged, version)
					}
				}
				m.SwitchTo("v4", agent.ApplyOptions{Level: l}).Wait()
				m.rest()
			})
			expect(t, m, "v4")
		}
	}
}

// TestTimerAfterSwitchTo: the timer leaves the host where a person has taken it, also from the host root.
func TestTimerAfterSwitchTo(t *testing.T) {
	for name, prepare := range map[string]func(m *Machine){
		"from an image": func(*Machine) {},
		"from the host root": func(m *Machine) {
			m.StayOnHost(true)
			m.Reboot(true)
			m.rest()
		},
		"from an older one": func(m *Machine) {
			m.Apply(agent.ApplyOptions{AllowDowngrade: true, From: releases.reference("v3")}).Wait()
			m.rest()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := playFrom(t, "v3", ordinary(), func(m *Machine) {
				prepare(m)
				if err := m.SwitchTo("v2", agent.ApplyOptions{}).Wait(); err != nil {
					t.Error(err)
				}
				m.rest()
				m.StayOnHost(false)
				unattended(m)
				m.rest()
				m.CheckRest()
			})
			expect(t, m, "v2")
		})
	}
}

// TestRollbackAfterSwitchTo: a rollback leads to the root that was left, while its successor is being tried and later.
func TestRollbackAfterSwitchTo(t *testing.T) {
	for _, later := range []bool{false, true} {
		m := playFrom(t, "v3", ordinary(), func(m *Machine) {
			m.SwitchTo("v2", agent.ApplyOptions{}).Wait()
			for m.Booted() != "v2" {
				time.Sleep(time.Second)
			}
			if later {
				m.rest()
			}
			back := m.RollBack("")
			for ; back == nil; back = m.RollBack("") { // until somebody can log in
				time.Sleep(100 * time.Millisecond)
			}
			if err := back.Wait(); err != nil {
				t.Error(err)
			}
			m.rest()
			m.CheckRest()
			if last := m.Record().Last; (last.Outcome == level.RolledBack) == later {
				t.Errorf("later: %v, the last switch is %+v", later, last)
			}
		})
		expect(t, m, "v3")
	}
}

// TestSwitchToWhatFails: a staged root that does not become good is rolled back from, and taken with --retry only.
func TestSwitchToWhatFails(t *testing.T) {
	m := playFrom(t, "v3", ordinary(), func(m *Machine) {
		m.Infect("v2", Fails)
		if err := m.SwitchTo("v2", agent.ApplyOptions{}).Wait(); err != nil {
			t.Error(err)
		}
		m.rest()
		m.CheckRest()
		if got := m.Booted(); got != "v3" {
			t.Errorf("%s runs, want v3", got)
		}
		m.Infect("v2", Healthy)
		if err := m.SwitchTo("v2", agent.ApplyOptions{}).Wait(); !errors.Is(err, record.ErrGivenUp) {
			t.Errorf("without --retry: %v", err)
		}
		if err := m.SwitchTo("v2", agent.ApplyOptions{Retry: true}).Wait(); err != nil {
			t.Error(err)
		}
		m.rest()
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

// TestDiskHangsInTheOldRoot: a disk that hangs while the old root is left does not keep the guard from its last step.
func TestDiskHangsInTheOldRoot(t *testing.T) {
	for _, cached := range []bool{true, false} {
		o := ordinary()
		o.Stuck = "escalate"
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Healthy)
			m.SlowService(-1, true)
			m.Apply(agent.ApplyOptions{}).Wait()
			m.HangDisk(forEver, cached)
			if resets := m.rest(); resets > 0 {
				t.Errorf("cached %v: a person had to reset the machine %d times", cached, resets)
			}
			m.Heal()
			m.tire()
			m.CheckRest()
		})
		expect(t, m, "v2")
	}
}

// TestAnswerLost: a reboot that was queued although its answer was lost is not taken for a refused one.
func TestAnswerLost(t *testing.T) {
	for ill, want := range map[Illness]string{Healthy: "v2", NeedsFull: "v2", Fails: "v1"} {
		for seed := range uint64(8) {
			o := ordinary()
			o.Seed = seed
			m := playFrom(t, "v1", o, func(m *Machine) {
				m.Publish("v2", ill)
				m.LoseAnswer()
				m.Apply(agent.ApplyOptions{})
				m.Settle(15 * time.Minute)
				r, id := m.Record(), releases.roots["v2"]
				if _, judged := r.Bad[id]; len(r.Failed) > 0 || r.LastGood() != id && !judged {
					t.Errorf("seed %d, v2 %q: failed %v, good %v, bad %v", seed, ill, r.Failed, r.Good, r.Bad)
				}
				m.CheckRest()
			})
			expect(t, m, want)
		}
	}
}

// TestCancelFails: a host whose PID 1 does not cancel a stuck shutdown gets its services back all the same.
func TestCancelFails(t *testing.T) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", Healthy)
		m.SlowService(-1, true)
		m.NeverCancel()
		m.Apply(agent.ApplyOptions{}).Wait()
		began := time.Now()
		m.rest()
		if took := time.Since(began); took > 10*time.Minute {
			t.Errorf("the services were down for %v", took)
		}
		if f := m.Record().Failed[releases.roots["v2"]]; f.Times != 1 {
			t.Errorf("the switch is counted as %+v", f)
		}
		m.Heal()
		m.tire()
		m.CheckRest()
	})
	expect(t, m, "v2")
}

// TestCancelledAsItIsArmed: a switch that the guard cancels just before the arming unit records that it arms stays
// cancelled, and its root is not bad.
func TestCancelledAsItIsArmed(t *testing.T) {
	for _, o := range versions() {
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Healthy)
			m.SlowService(17500*time.Millisecond, false)
			m.HoldUp("guard", "disarm", 3*time.Second)
			m.HoldUp("arm", "write "+record.RecordFile, 4*time.Second)
			m.Apply(agent.ApplyOptions{Unattended: true}).Wait()
			m.rest()
			r := m.Record()
			if f := r.Failed[releases.roots["v2"]]; f.Times != 1 || r.Moving() || len(r.Bad) > 0 {
				t.Errorf("systemd %d: the switch is counted as %+v, %s, bad %v", o.Systemd, f, r.Phase, r.Bad)
			}
			m.CheckRest()
		})
		expect(t, m, "v1")
	}
}

// TestFullNeverRequested: a full reboot that was never requested is no soft reboot that was made instead of it.
func TestFullNeverRequested(t *testing.T) {
	for _, o := range versions() {
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", NeedsFull)
			m.HoldUp("apply", "ask logind for a full reboot", time.Second)
			c := m.Apply(agent.ApplyOptions{})
			m.until(record.PhaseArmed)
			m.kill(c) // before it asks for the reboot
			m.Settle(time.Minute)
			m.Apply(agent.ApplyOptions{})
			m.Settle(5 * time.Minute)
			if r := m.Record(); len(r.Failed) > 0 || len(r.Bad) > 0 {
				t.Errorf("systemd %d: failed %v, bad %v", o.Systemd, r.Failed, r.Bad)
			}
			m.rest()
			m.tire()
			m.CheckRest()
		})
		expect(t, m, "v2")
	}
}

// TestOutcomeOnAFullDisk: a switch that is refused, cancelled or never requested leaves the record when the disk is
// full, too.
func TestOutcomeOnAFullDisk(t *testing.T) {
	const ask = "ask logind for a soft reboot"
	for name, begin := range map[string]func(m *Machine){
		"refused": func(m *Machine) {
			m.HoldUp("apply", ask, time.Second)
			c := m.Apply(agent.ApplyOptions{})
			m.until(record.PhaseArmed)
			m.Inhibit(true)
			m.FillDisk(true)
			c.Wait()
		},
		"cancelled": func(m *Machine) {
			m.SlowService(-1, true)
			m.Apply(agent.ApplyOptions{}).Wait()
			m.FillDisk(true)
			time.Sleep(30 * time.Second)
			if f := m.Record().Failed[releases.roots["v2"]]; f.Times != 1 { // confirm would count it as never requested
				t.Errorf("the switch is counted as %+v", f)
			}
		},
		"never requested": func(m *Machine) {
			m.HoldUp("apply", ask, time.Second)
			c := m.Apply(agent.ApplyOptions{})
			m.until(record.PhaseArmed)
			m.FillDisk(true)
			time.Sleep(500 * time.Millisecond) // until the guard watches
			m.kill(c)
			time.Sleep(2 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := playFrom(t, "v1", ordinary(), func(m *Machine) {
				m.Publish("v2", Healthy)
				begin(m)
				if r := m.Record(); r.Moving() {
					t.Errorf("the record is in phase %s", r.Phase)
				}
				m.Heal()
				m.rest()
				m.tire()
				m.CheckRest()
			})
			expect(t, m, "v2")
		})
	}
}

// TestRollbackCannotBeRecorded: a rollback that cannot be recorded is left to the guard; without one, a full reboot
// leads back.
func TestRollbackCannotBeRecorded(t *testing.T) {
	for _, o := range versions() {
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Fails)
			m.Apply(agent.ApplyOptions{}).Wait()
			m.until(record.PhaseTrying)
			m.RemountReadOnly()
			if resets := m.rest(); resets > 0 {
				t.Errorf("systemd %d: a person had to reset the machine %d times", o.Systemd, resets)
			}
			m.tire()
			m.CheckRest()
		})
		expect(t, m, "v1")
	}
}

// TestGuardsAnswerLost: the guard, too, does not take a reboot that was queued for a refused one.
func TestGuardsAnswerLost(t *testing.T) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", ReadOnly) // so that confirm cannot record a rollback, and leaves it to the guard
		m.Apply(agent.ApplyOptions{}).Wait()
		for m.Booted() != "v2" {
			time.Sleep(time.Millisecond)
		}
		m.LoseAnswer()
		before := m.Reboots()
		m.rest()
		if now := m.Reboots(); now != before+1 {
			t.Errorf("%d reboots lead back, want 1", now-before)
		}
		m.CheckRest()
	})
	expect(t, m, "v1")
}

// TestGivenUpOnReadOnlyState: a host is not kept in a root that was given up by state which that root made read-only.
func TestGivenUpOnReadOnlyState(t *testing.T) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", Fails)
		m.HoldUp("guard", "boot the kernel", time.Minute)
		m.Apply(agent.ApplyOptions{}).Wait()
		m.until(record.PhaseTrying)
		m.Deafen(3 * time.Minute)
		for len(m.Record().Bad) == 0 {
			time.Sleep(time.Second)
		}
		m.RemountReadOnly()
		m.killGuard()
		m.Heal()
		if resets := m.rest(); resets > 0 {
			t.Errorf("a person had to reset the machine %d times", resets)
		}
		m.CheckRest()
	})
	expect(t, m, "v1")
}

// TestRollbackEndsAFetch: whoever rolls back does not wait for an image that takes hours to arrive. Another command
// does not end the fetch.
func TestRollbackEndsAFetch(t *testing.T) {
	m := playFrom(t, "v2", ordinary(), func(m *Machine) {
		m.Publish("v3", Healthy)
		m.SlowFetch(5 * time.Hour)
		fetch := m.Apply(agent.ApplyOptions{Unattended: true})
		time.Sleep(10 * time.Second)
		if err := m.GC().Wait(); !errors.Is(err, record.ErrBusy) {
			t.Errorf("gc ends with %v", err)
		}
		began := time.Now()
		if err := m.RollBack("v1").Wait(); err != nil {
			t.Errorf("the rollback ends with %v", err)
		}
		if err := fetch.Wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("the fetch ends with %v", err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the rollback took %v", took)
		}
		m.rest()
		m.Heal()
		m.CheckRest()
	})
	expect(t, m, "v1")
}

// until waits until the record is in a phase.
func (m *Machine) until(phase record.Phase) {
	for m.Record().Phase != phase {
		time.Sleep(time.Millisecond)
	}
}

// kill kills a command.
func (m *Machine) kill(c *Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bury(c.p, true)
}

// killGuard kills the guard.
func (m *Machine) killGuard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bury(m.guard, true)
}

// TestRecordIsGone: where an image root runs and the record is gone, gc removes nothing, and confirm begins a new
// record with the running root.
func TestRecordIsGone(t *testing.T) {
	m := playFrom(t, "v2", ordinary(), func(m *Machine) {
		m.loseRecord()
		before := len(m.disk.Now.Glob(rootsDir + "/*"))
		if err := m.GC().Wait(); !errors.Is(err, record.ErrLost) {
			t.Errorf("gc ends with %v, want that the record is lost", err)
		}
		if now := len(m.disk.Now.Glob(rootsDir + "/*")); now != before {
			t.Errorf("%d of %d roots are left", now, before)
		}
		err := m.confirm()
		if r := m.Record(); err != nil || r.LastGood() != releases.roots["v2"] || len(r.Good) != 2 {
			t.Errorf("confirm ends with %v, and the good roots are %v", err, r.Good)
		}
		m.rest()
		m.CheckRest()
	})
	expect(t, m, "v2")
}

// TestRollbackWithoutRecord: a lost record does not keep anybody in the running root.
func TestRollbackWithoutRecord(t *testing.T) {
	m := playFrom(t, "v2", ordinary(), func(m *Machine) {
		m.loseRecord()
		if err := m.RollBack("host").Wait(); err != nil {
			t.Errorf("the rollback ends with %v", err)
		}
		m.rest()
		m.CheckRest()
	})
	expect(t, m, "host")
}

// loseRecord removes the record.
func (m *Machine) loseRecord() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk.Change(time.Now(), func(f disk.Files) { f.Remove(record.StateDir + "/state.json") })
}

// confirm runs updatectl confirm, as a person does.
func (m *Machine) confirm() error {
	return m.Run("confirm", false, func(ctx context.Context, a *agent.Agent) error {
		_, err := a.Confirm(ctx)
		return err
	}).Wait()
}

// TestRecordIsGoneInTrial: a root that was tried when the record went is not judged. The host returns to the root that
// it came from, which begins a new record, and the other one is bad.
func TestRecordIsGoneInTrial(t *testing.T) {
	for later := 5 * time.Second; later < 12*time.Second; later += 500 * time.Millisecond {
		m := playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.Publish("v2", Fails)
			unattended(m)
			time.Sleep(later)
			m.loseRecord()
			m.Settle(15 * time.Minute)
			m.Heal()
			m.confirm()
			m.rest()
		})
		if booted := m.Booted(); booted == "v2" || m.Record().LastGood() != releases.roots[booted] && booted != "host" {
			t.Errorf("%v later: %s runs, the record is %+v\n%s", later, booted, m.Record(), m.Story())
		}
	}
}

// TestUnconfiguredNetwork: a root in which nothing configures the network is not good, although the host can be reached
// for now. If a root comes to that while it is good, the host is left in the host root after a full reboot.
func TestUnconfiguredNetwork(t *testing.T) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", Unconfigured)
		unattended(m)
		m.rest()
		if reason := m.Record().Bad[releases.roots["v2"]].Reason; m.Booted() != "v1" ||
			!strings.Contains(reason, "nothing in this root configures it, and systemd-networkd did before") {
			t.Errorf("%s runs, v2 is bad: %q", m.Booted(), reason)
		}
		m.Infect("v1", Unconfigured)
		m.CutPower()
		m.rest()
		if m.Booted() != "host" {
			t.Errorf("%s runs after the full reboot", m.Booted())
		}
		m.CheckRest()
	})
	expect(t, m, "host")
}

// TestSomebodyWaits: whoever runs confirm in a root that is being tried gets the verdict of the unit, and ends nothing
// by no longer waiting.
func TestSomebodyWaits(t *testing.T) {
	for ill, want := range map[Illness]string{Healthy: "v2", Fails: "v1"} {
		for _, patience := range []time.Duration{time.Second, time.Hour} {
			m := playFrom(t, "v1", ordinary(), func(m *Machine) {
				m.Publish("v2", ill)
				unattended(m)
				for r := m.Record(); r.Phase != record.PhaseTrying; r = m.Record() {
					time.Sleep(10 * time.Millisecond)
				}
				var done trial.Confirmed
				waited := false
				err := m.Run("confirm", false, func(ctx context.Context, a *agent.Agent) (err error) {
					ctx, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					done, waited, err = a.Trial.Await(ctx)
					return err
				}).Wait()
				if patience == time.Hour && ill == Healthy && (err != nil || !waited || !done.Good) {
					t.Errorf("v2 %s: confirm ends with %+v and %v", ill, done, err)
				}
				if patience == time.Second && (!errors.Is(err, context.DeadlineExceeded) || done.Good) {
					t.Errorf("v2 %s: confirm has no patience and ends with %+v and %v", ill, done, err)
				}
				if ill == Fails && (err == nil || done.Good) {
					t.Errorf("v2 %s: confirm ends with %+v and %v", ill, done, err)
				}
				m.rest()
				m.CheckRest()
			})
			expect(t, m, want)
		}
	}
}

// TestNothingStaysFrozen: what an arming step has frozen is thawed by confirm in the next userspace when the step and
// the guard were killed, and by any command when there is no next one.
func TestNothingStaysFrozen(t *testing.T) {
	m := playFrom(t, "v1", ordinary(), func(m *Machine) {
		m.Publish("v2", Healthy)
		m.Linger()
		m.Apply(agent.ApplyOptions{}).Wait()
		for !m.freezes(func(is bool) bool { return is }) {
			time.Sleep(time.Millisecond)
		}
		m.killArm()
		m.killGuard()
		m.Settle(15 * time.Minute)
		m.CheckRest()
		m.freezes(func(bool) bool { return true })
		if err := m.GC().Wait(); err != nil {
			t.Error(err)
		}
		m.CheckRest()
	})
	expect(t, m, "v1")
}

// TestKeptUnits: a socket is kept over a switch and on the way back; nothing is left of that in a switch that is
// refused, stuck, withdrawn or not armed, nor after a full reboot. CheckRest sees that systemd looks for connections
// again.
func TestKeptUnits(t *testing.T) {
	const dropIns = "/run/systemd/system/*.d/*"
	for name, c := range map[string]struct {
		do   func(*Machine)
		runs string
		left int // drop-ins
	}{
		"switched":     {func(m *Machine) { m.Publish("v2", Healthy) }, "v2", 1},
		"rolled back":  {func(m *Machine) { m.Publish("v2", Fails) }, "v1", 1},
		"by the guard": {func(m *Machine) { m.Publish("v2", KillsConfirm) }, "v1", 1},
		"refused":      {func(m *Machine) { m.Publish("v2", Healthy); m.Inhibit(true) }, "v1", 0},
		"stuck":        {func(m *Machine) { m.Publish("v2", Healthy); m.SlowService(time.Hour, true) }, "v1", 0},
		"not armed":    {func(m *Machine) { m.Publish("v2", Unjoinable) }, "v1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := ordinary()
			o.Keeps = true
			m := playFrom(t, "v1", o, func(m *Machine) {
				c.do(m)
				m.Apply(agent.ApplyOptions{}).Wait()
				m.Settle(15 * time.Minute)
				m.CheckRest()
				if left := len(m.filesOfRun(dropIns)); left != c.left {
					t.Errorf("%d drop-ins are left, want %d", left, c.left)
				}
				m.Inhibit(false)
				m.SlowService(0, false)
				m.CutPower()
				m.rest()
				m.CheckRest()
			})
			expect(t, m, c.runs)
		})
	}
}

// filesOfRun returns the files below /run that match a pattern.
func (m *Machine) filesOfRun(pattern string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run.Glob(pattern)
}

// freezes changes whether what a user runs is frozen, and returns whether it is then.
func (m *Machine) freezes(to func(is bool) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozenUser = to(m.frozenUser)
	return m.frozenUser
}

// killArm kills the arming step.
func (m *Machine) killArm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.processesInOrder() {
		if p.verb == "arm" {
			m.bury(p, true)
		}
	}
}

// TestResumesWhatIsIntact: after a full reboot, a host whose last good root is damaged resumes the good root before it.
// If that fails as often as the last good root may, the host stays on its host root. It used to try again and again.
func TestResumesWhatIsIntact(t *testing.T) {
	for ill, want := range map[Illness]string{Healthy: "v1", Panics: "host"} {
		m := playFrom(t, "v2", ordinary(), func(m *Machine) {
			m.Damage("v2")
			m.Infect("v1", ill)
			m.Reboot(true)
			m.Settle(time.Hour)
			if most := 1 + 2*record.MaxAttempts; m.Reboots() > most { // each attempt is a soft reboot, and ends with a full one
				t.Errorf("v1 %q: %d reboots, at most %d are expected", ill, m.Reboots(), most)
			}
			m.CheckRest()
		})
		expect(t, m, want)
	}
}

// TestFirstToFindThatItIsNotBack: when a switch back ended in the bad root again, the first command to find it requests
// a full reboot. It used to go on without a look at the host after that, and crashed.
func TestFirstToFindThatItIsNotBack(t *testing.T) {
	const follows = "only a full reboot leads back"
	for name, run := range map[string]func(m *Machine) *Command{
		"gc":       func(m *Machine) *Command { return m.GC() },
		"rollback": func(m *Machine) *Command { return m.RollBack("") },
	} {
		m := playFrom(t, "v1", ordinary(), func(m *Machine) {
			m.Publish("v2", Fails)
			m.Infect("v1", FallsBack)
			m.Apply(agent.ApplyOptions{Unattended: true}).Wait()
			end := time.Now().Add(15 * time.Minute)
			for !strings.Contains(m.Story(), follows) && time.Now().Before(end) {
				time.Sleep(5 * time.Millisecond)
				if rec := m.Record(); rec.Switch == nil || rec.Switch.Verb != record.VerbBack {
					continue
				}
				if m.guards() {
					m.killGuard()
				}
				if c := run(m); c != nil {
					c.Wait()
				}
			}
			m.Infect("v1", Healthy)
			m.Settle(15 * time.Minute)
			m.CheckRest()
		})
		expect(t, m, "v1")
		if !regexp.MustCompile(name + `\[\d+\]: ERROR ` + follows).MatchString(m.Story()) {
			t.Errorf("%s does not find it:\n%s", name, m.Story())
		}
	}
}

// guards reports whether a guard runs.
func (m *Machine) guards() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.guard != nil
}

// TestRevocationOutlivesItsTrial: a revocation that arrives in the /etc of a root while that is being tried holds after
// the way back, also if no command of the agent ran in that root since.
func TestRevocationOutlivesItsTrial(t *testing.T) {
	etc := filepath.Join(releases.root, record.StateDir, "roots", releases.roots["v2"], "etc")
	t.Cleanup(func() { os.RemoveAll(filepath.Join(releases.root, record.StateDir)) })
	key, err := os.ReadFile(filepath.Join(releases.root, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	testtree.File(t, etc, "updatectl/keys/release.pub", string(key))
	testtree.File(t, etc, "updatectl/conf.d/90-revoked.toml",
		"[[verify.key]]\nfile = '"+keyFile+"'\nrevoked = true\nreason = 'stolen'\n")
	for _, c := range []struct{ old, new Illness }{
		{Healthy, Freezes}, {Healthy, Panics}, {Healthy, Hangs}, {Healthy, Fails}, {Healthy, FillsDisk},
		{Healthy, CutsNetwork}, {Healthy, ReadOnly}, {Healthy, KillsConfirm}, {Healthy, HangsDisk}, {Healthy, Deafens},
		{Healthy, Restarts},
		{FallsBack, Fails}, // a full reboot leads back
	} {
		t.Run(string(c.new+", back "+c.old), func(t *testing.T) {
			m := playFrom(t, "v1", ordinary(), func(m *Machine) {
				m.Publish("v2", c.new)
				m.Infect("v1", c.old)
				unattended(m)
				m.Settle(15 * time.Minute)
				m.Infect("v1", Healthy)
				m.rest()
				m.Heal()
				m.tire()
				if err := unattended(m); !errors.Is(err, verify.ErrRevoked) {
					t.Errorf("back in v1, apply ends with %v, want that the key is revoked", err)
				}
				m.CheckRest()
			})
			expect(t, m, "v1")
		})
	}
}
