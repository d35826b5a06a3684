package simulation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// events returns the journal, with the versions of roots instead of the roots. Staging and switches are of v2 unless
// it says otherwise.
func (m *Machine) events(t *testing.T) (lines []string) {
	t.Helper()
	page := eventtest.ReadPage(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.journal {
		if err := page.Check(l); err != nil {
			t.Error(err)
		}
		line := page.Line(l)
		for id, version := range m.publisher.versions {
			line = strings.ReplaceAll(line, id, version)
		}
		lines = append(lines, line)
	}
	return lines
}

// The beginning of an update to v2, the way back from it, and the way back after a full reboot.
var (
	update   = []string{"staged v2 v2", "switching v1 v2 v2 apply soft"}
	back     = []string{"unhealthy v2 v2 v1", "switching v2 v1 v1 back soft", "rolled-back v1 v1 back"}
	byKernel = []string{"staged v2 v2", "switching v1 v2 v2 apply full", "switching host v2 v2 apply soft"}
	resumed  = []string{"switching host v1 v1 resume soft", "resumed v1 v1 resume"}
)

// TestEvents: each event is logged when it happens, once, with the fields that the page lists, and at no other time.
func TestEvents(t *testing.T) {
	ofV2 := func(ill Illness) func(*Machine) {
		return func(m *Machine) { m.Publish("v2", ill); unattended(m) }
	}
	ofKernel := func(kernel, root Illness) func(*Machine) {
		return func(m *Machine) {
			m.Publish("v2", root)
			m.InfectKernel("v2", kernel)
			m.Apply(full).Wait()
		}
	}
	stuck := func(m *Machine) { m.SlowService(-1, true); ofV2(Healthy)(m) }
	for name, c := range map[string]struct {
		begins string
		do     func(*Machine)
		want   []string
	}{
		"an update": {"v1", ofV2(Healthy), slices.Concat(update, []string{"good v2 v2 apply"})},
		"an update by full reboot": {"v1", ofV2(NeedsFull), []string{"staged v2 v2", "switching v1 v2 v2 apply full",
			"switching host v2 v2 apply soft", "good v2 v2 apply"}},
		"nothing new":              {"v1", func(m *Machine) { unattended(m) }, nil},
		"a root that is not taken": {"v1", ofV2(Unacceptable), update[:1]},
		"a root that cannot be mounted": {"v1", ofV2(Unjoinable), slices.Concat(update, []string{
			"switch-failed v2 v2 apply"})},
		"a stuck shutdown": {"v1", stuck, slices.Concat(update, []string{"switch-failed v2 v2 apply"})},
		"a stuck shutdown that cannot be cancelled": {"v1", func(m *Machine) {
			m.NeverCancel()
			stuck(m)
			m.awaitReboot()
			m.SlowService(0, false) // or chance says whether it runs when the host moves on, and is in the way again
		}, slices.Concat(update, []string{"switch-failed v2 v2 apply", "full-reboot"}, resumed)},
		"unhealthy, by confirm":                         {"v1", ofV2(Fails), slices.Concat(update, back)},
		"unhealthy, by the guard":                       {"v1", ofV2(KillsConfirm), slices.Concat(update, back)},
		"unhealthy, by a record that cannot be written": {"v1", ofV2(ReadOnly), slices.Concat(update, back)},
		"unhealthy, with a frozen PID 1": {"v1", ofV2(Freezes), slices.Concat(update, back[:1], []string{"full-reboot"},
			resumed)},
		"unhealthy, also the root before": {"v1", ofV2(CutsNetwork), slices.Concat(update, back[:2], []string{
			"unhealthy v1 v1", "full-reboot"}, resumed)},
		"a crash": {"v1", ofV2(Panics), slices.Concat(update,
			[]string{"switch-failed v2 v2 apply"}, resumed)},
		"an update with its kernel": {"v1", ofKernel(Healthy, Healthy), slices.Concat(byKernel,
			[]string{"good v2 v2 apply"})},
		"a kernel that panics": {"v1", ofKernel(Panics, Healthy), slices.Concat(byKernel[:2],
			[]string{"switch-failed v2 v2 apply"}, resumed)},
		"unhealthy on its kernel, by confirm": {"v1", ofKernel(Healthy, Fails), slices.Concat(byKernel, back[:1],
			[]string{"full-reboot"}, resumed)},
		"unhealthy on its kernel, by the guard": {"v1", ofKernel(Healthy, Deafens), slices.Concat(byKernel, back[:1],
			[]string{"full-reboot"}, resumed)},
		"a kernel whose root cannot be joined": {"v1", func(m *Machine) {
			ofKernel(Healthy, Healthy)(m)
			m.awaitReboot()
			m.Damage("v2")
		}, slices.Concat(byKernel[:2], []string{"switch-failed v2 v2 apply", "full-reboot"}, resumed)},
		"a rollback": {"v2", func(m *Machine) { m.RollBack("").Wait() },
			[]string{"switching v2 v1 v1 rollback soft", "rolled-back v1 v1 rollback"}},
		"a rollback to an unhealthy root": {"v2", func(m *Machine) { m.Infect("v1", Fails); m.RollBack("v1").Wait() },
			[]string{"switching v2 v1 v1 rollback soft", "unhealthy v1 v1", "rolled-back v1 v1 rollback"}},
		"a full reboot": {"v1", (*Machine).CutPower, resumed},
		"a full reboot in which an operator stays": {"v1", func(m *Machine) { m.StayOnHost(true); m.CutPower() }, nil},
		"a full reboot without a root that can be resumed": {"v2", func(m *Machine) {
			m.Damage("v2")
			m.Infect("v1", Panics)
			m.CutPower()
		}, slices.Concat(slices.Repeat([]string{resumed[0], "switch-failed v1 v1 resume"}, record.MaxAttempts),
			[]string{"not-resumed"})},
		"a full reboot, and PID 1 does not answer": {"v1", func(m *Machine) { m.CutPower(); m.Deafen(3 * time.Minute) },
			[]string{"not-resumed"}},
		"refused, twice": {"v2", func(m *Machine) { m.Publish("v1", Healthy); unattended(m); unattended(m) },
			[]string{"refused"}},
		"a lock of an operator": {"v1", func(m *Machine) { m.Inhibit(true); ofV2(Healthy)(m) }, update[:1]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := ordinary()
			o.Kernels = strings.Contains(name, "kernel")
			m := playFrom(t, c.begins, o, func(m *Machine) {
				c.do(m)
				m.Settle(15 * time.Minute)
			})
			if got := m.events(t); !slices.Equal(got, c.want) {
				t.Errorf("the events are\n%s\nwant\n%s\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"), m.Story())
			}
		})
	}
}

// awaitReboot waits until the host has rebooted once more.
func (m *Machine) awaitReboot() {
	for before := m.Reboots(); m.Reboots() == before; time.Sleep(time.Second) {
	}
}

// unfinished returns the switch in a journal that nothing says the end of, "" if there is none. Where a full reboot is
// a part of the switch, the second half is a switch of its own; and a person may leave a root that is on trial.
func unfinished(journal []eventtest.Logged) string {
	var open *eventtest.Logged
	for _, l := range journal {
		switch l.Event {
		case event.Switching:
			if open != nil && !goesOn(open.Fields, l.Fields) {
				return fmt.Sprintf("%v is followed by %v", open.Fields, l.Fields)
			}
			open = &l
		case event.Good, event.RolledBack, event.Resumed:
			if open == nil || open.Fields["ROOT"] != l.Fields["ROOT"] || open.Fields["VERB"] != l.Fields["VERB"] {
				return fmt.Sprintf("%v %v does not end a switch to there", l.Event, l.Fields)
			}
			open = nil
		case event.Unhealthy:
			if open == nil || open.Fields["ROOT"] != l.Fields["ROOT"] {
				return fmt.Sprintf("%v %v is of no root that is tried", l.Event, l.Fields)
			}
			if l.Fields["TO"] != "" || open.Fields["VERB"] != record.VerbRollback {
				open = nil // otherwise it may be kept
			}
		case event.SwitchFailed, event.FullReboot:
			open = nil
		}
	}
	if open != nil {
		return fmt.Sprintf("nothing says how this ended: %v", open.Fields)
	}
	return ""
}

// goesOn reports whether a switch goes on with another one: a full reboot landed, or a person left the root.
func goesOn(first, next map[string]string) bool {
	return first["LEVEL"] == string(level.Full) && first["ROOT"] == next["ROOT"] ||
		(next["VERB"] == record.VerbBack || next["VERB"] == record.VerbRollback) && next["FROM"] == first["ROOT"]
}
