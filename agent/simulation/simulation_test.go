package simulation

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updatectl/updatectl/agent"
)

// releases is shared by all machines.
var releases *Publisher

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "simulation-")
	if err == nil {
		releases, err = NewPublisher(dir, 6)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// play runs a script on a machine that was just installed, and returns the machine when it has stopped.
func play(t *testing.T, o Options, script func(m *Machine)) (m *Machine) {
	t.Helper()
	return playFrom(t, "", o, script)
}

// playFrom runs a script on a machine that has been brought to a version.
func playFrom(t *testing.T, version string, o Options, script func(m *Machine)) (m *Machine) {
	t.Helper()
	from := snapshot(t, version)
	synctest.Test(t, func(*testing.T) {
		if from == nil {
			m = New(o, releases)
		} else {
			m = NewFrom(from, o, releases)
		}
		defer time.Sleep(time.Hour) // until every process has seen that it is dead
		defer m.Stop()
		m.Settle(time.Minute)
		script(m)
	})
	return m
}

// snapshots are those of machines that were brought to a version, one after the other.
var snapshots sync.Map

func snapshot(t *testing.T, version string) *Snapshot {
	t.Helper()
	if version == "" {
		return nil
	}
	if s, made := snapshots.Load(version); made {
		return s.(*Snapshot)
	}
	var s *Snapshot
	m := play(t, ordinary(), func(m *Machine) {
		for _, v := range []string{"v1", "v2", "v3"} {
			m.Publish(v, Healthy)
			unattended(m)
			m.rest()
			if v == version {
				break
			}
		}
		s = m.Snapshot()
	})
	expect(t, m, version)
	snapshots.Store(version, s)
	return s
}

func ordinary() Options {
	return Options{Seed: 1, Systemd: 257, Stuck: "cancel", Fallback: "full", Story: true}
}

// expect fails the test unless the machine rests where it should and nothing happened that must not.
func expect(t *testing.T, m *Machine, booted string) {
	t.Helper()
	if got := m.Booted(); got != booted {
		t.Errorf("%s runs, want %s", got, booted)
	}
	for _, b := range m.Broken() {
		t.Error(b)
	}
	if t.Failed() && m.options.Story {
		t.Log("the story:\n" + m.Story())
	}
}

// rest waits until nothing moves, with a timer that fires now and then. Where that is not enough, a person resets the
// machine; it returns how often.
func (m *Machine) rest() (resets int) {
	for range 6 {
		for range 2 {
			if m.Settle(15*time.Minute) && !m.moving() {
				return resets
			}
			unattended(m)
		}
		resets++
		m.Say("a person resets the machine")
		m.CutPower()
	}
	return resets
}

// tire lets the timer fire until that changes nothing any more, and returns how often a person reset the machine.
func (m *Machine) tire() (resets int) {
	const most, quiet = 10, 2
	for range most {
		before, calls := m.Reboots(), 0
		for ; calls < quiet && m.Reboots() == before; calls++ {
			unattended(m)
			resets += m.rest()
		}
		if calls == quiet && m.Reboots() == before {
			return resets
		}
	}
	m.Disapprove("the timer reboots the host again and again")
	return resets
}

func (m *Machine) moving() bool {
	rec := m.Record()
	return rec != nil && rec.Moving()
}

func unattended(m *Machine) error { return m.Apply(agent.ApplyOptions{Unattended: true}).Wait() }

func TestApplyGood(t *testing.T) {
	for _, o := range versions() {
		m := play(t, o, func(m *Machine) {
			for _, v := range []string{"v1", "v2", "v3", "v4"} {
				m.Publish(v, Healthy)
				if err := unattended(m); err != nil {
					t.Error(err)
				}
				m.rest()
				m.CheckRest()
			}
		})
		expect(t, m, "v4")
	}
}

// versions are machines with every systemd that counts.
func versions() (list []Options) {
	for _, v := range []int{254, 255, 257} {
		o := ordinary()
		o.Systemd = v
		list = append(list, o)
	}
	return list
}

// TestIll: from every root that is ill the host comes back, and a timer does not go there again.
func TestIll(t *testing.T) {
	for _, o := range versions() {
		for _, ill := range Illnesses {
			t.Run(fmt.Sprintf("systemd %d, it %s", o.Systemd, ill), func(t *testing.T) {
				m := playFrom(t, "v1", o, func(m *Machine) {
					m.Publish("v2", ill)
					resets := 0
					for range 4 {
						unattended(m)
						resets += m.rest()
					}
					if resets > 0 && o.Systemd > 254 && ill != EndsGuard {
						t.Errorf("a person had to reset the machine %d times", resets)
					}
					m.Heal()
					m.tire()
					m.CheckRest()
				})
				want := "v1"
				// Without a guard nobody goes back where confirm cannot, and a timer's apply confirms, too.
				if ill.good() || o.Systemd == 254 && ill == KillsConfirm {
					want = "v2"
				}
				expect(t, m, want)
			})
		}
	}
}

// journey is something that a host does, from v1 or v2 on, and is interrupted in.
type journey struct {
	name string
	// ill is what v2 is ill of; begins the version that runs before.
	ill    Illness
	begins string
	act    func(m *Machine) error
	// ends is where the host is in the end. A journey that nobody makes again after an interruption may also end where it
	// began.
	ends  string
	again bool
}

var journeys = []journey{
	{"apply", Healthy, "v1", unattended, "v2", true},
	{"apply by a full reboot", NeedsFull, "v1", unattended, "v2", true},
	{"rollback", Healthy, "v2", func(m *Machine) error { return m.RollBack("").Wait() }, "v1", false},
	{"rollback to the host root", Healthy, "v2", func(m *Machine) error { return m.RollBack("host").Wait() }, "host",
		false},
	{"back from a root that hangs", Hangs, "v1", unattended, "v1", true},
	{"back from a root that fails", Fails, "v1", unattended, "v1", true},
	{"back from a root that panics", Panics, "v1", unattended, "v1", true},
	{"back from a root that makes the state read-only", ReadOnly, "v1", unattended, "v1", true},
	{"resume", Healthy, "v2", func(m *Machine) error { m.CutPower(); return nil }, "v2", true},
}

// interrupt makes a journey with a fault at one crossing of the seam. It reports whether the fault happened.
func interrupt(t *testing.T, j journey, o Options, f Fault, at int) (struck bool) {
	var answer error
	var resets int
	m := playFrom(t, j.begins, o, func(m *Machine) {
		m.Publish("v2", j.ill)
		m.Linger()
		m.Strike(f, at)
		answer = j.act(m)
		resets = m.rest()
		struck = m.Struck()
		m.Heal()
		resets += m.tire()
		m.CheckRest()
	})
	if resets > 0 && (f != Kill || j.ill == Healthy) {
		t.Errorf("a person had to reset the machine %d times", resets)
	}
	want := j.ends
	// A rollback is the wish of a person, who is not asked again. Once it was answered, it holds, unless the power is cut
	// before the switch or whoever makes it is killed: then the host stays where it was, which is good.
	holds := answer == nil && (!struck || f == Kill && !m.KilledGuard() && !m.KilledArm())
	if !j.again && !holds && m.Booted() == j.begins {
		want = j.begins
	}
	expect(t, m, want)
	return struck
}

// TestInterrupted interrupts an apply at every crossing of the seam, and the other
// journeys at every ninth, with -every at every one: by a power cut that loses what is
// not synced, by one that loses nothing, and by a kill.
func TestInterrupted(t *testing.T) {
	for _, j := range journeys {
		for _, f := range []struct {
			name    string
			fault   Fault
			unlucky bool
		}{{"killed", Kill, false}, {"power cut", PowerCut, false}, {"power cut, nothing kept", PowerCut, true}} {
			t.Run(j.name+", "+f.name, func(t *testing.T) {
				t.Parallel()
				o := ordinary()
				o.Unlucky, o.Story = f.unlucky, false
				stride := 1
				if j.name != "apply" && !*every {
					stride = 9
				}
				n, failed := 1, 0
				for ; failed < 3; n += stride {
					struck := false
					ok := t.Run(fmt.Sprint(n), func(t *testing.T) { struck = interrupt(t, j, o, f.fault, n) })
					if !ok {
						failed++
						o := o
						o.Story = true
						t.Run(fmt.Sprint(n, " again, with its story"), func(t *testing.T) { interrupt(t, j, o, f.fault, n) })
					}
					if !struck {
						break
					}
				}
				if n < 20 {
					t.Errorf("only %d crossings of the seam", n)
				}
				t.Logf("%d crossings", n)
			})
		}
	}
}
