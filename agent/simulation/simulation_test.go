package simulation

import (
	"fmt"
	"os"
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

// play runs a script on a new machine, and returns it when the machine has stopped.
func play(t *testing.T, o Options, script func(m *Machine)) (m *Machine) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		m = New(o, releases)
		defer m.Stop()
		m.Settle(time.Minute)
		script(m)
	})
	return m
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
	if t.Failed() {
		t.Log("the story:\n" + m.Story())
	}
}

// rest waits until nothing moves, and has a person help where nothing else does.
func (m *Machine) rest() {
	for range 10 {
		if m.Settle(15*time.Minute) && !m.moving() {
			return
		}
		if m.Hopeless() {
			m.Say("a person resets the machine")
			m.CutPower()
		}
	}
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
				m := play(t, o, func(m *Machine) {
					m.Publish("v1", Healthy)
					unattended(m)
					m.rest()
					m.Publish("v2", ill)
					for range 4 {
						unattended(m)
						m.rest()
					}
					m.Heal()
					for range 3 {
						unattended(m)
						m.rest()
					}
					m.CheckRest()
				})
				want := "v1"
				if ill.good() {
					want = "v2"
				}
				expect(t, m, want)
			})
		}
	}
}
