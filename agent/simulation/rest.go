package simulation

import (
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/simulation/disk"
	"github.com/updatectl/updatectl/switcher"
)

// What must be true of a machine at rest.

// halves are the patterns of what is half done.
var halves = []string{
	record.StateDir + "/.*", stagingDir + "/*", rootsDir + "/*/*.new", rootsDir + "/*/*.merged",
	rootsDir + "/*/*.exchanged",
	rootsDir + "/*/.*", switcher.RunDir + "/.*", holdFiles,
}

// CheckRest is what must be true of a machine that rests. The machine has no faults and nothing moves.
func (m *Machine) CheckRest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.armed != nil {
		m.breach("%s is left armed", m.armed.next.ID)
	}
	if m.frozenUser {
		m.breach("what a user runs is left frozen")
	}
	if m.held {
		m.breach("systemd still looks for no connection to the kept socket")
	}
	rec := m.rec
	if rec == nil {
		return
	}
	if rec.Moving() {
		m.breach("the record is in phase %s, and nothing moves", rec.Phase)
		return
	}
	m.checkRecord(restName{})
	if m.mounted.volatile {
		if rec.Healthy != m.mounted.id || slices.Contains(rec.Good, m.mounted.id) && m.goodEtc[m.mounted.id] == "" {
			m.breach("%s runs on a copy of the state, and rests without being found healthy: %v", m.mounted.id, rec.Good)
		}
	} else if !slices.Contains(rec.Good, m.mounted.id) {
		m.breach("%s runs and is not good: %v", m.mounted.id, rec.Good)
	}
	if bad, isBad := rec.Bad[m.mounted.id]; isBad && rec.LastGood() == m.mounted.id {
		m.breach("%s runs, is the last good root, and is bad: %s", m.mounted.id, bad.Reason)
	}
	for _, id := range rec.Good {
		if id == switcher.HostRoot {
			continue
		}
		if left := m.disk.Now.Glob(etcPath(id) + ".prepared"); len(left) > 0 {
			m.breach("%s is good, and has an /etc beside its own that was prepared", id)
		}
		etc, err := m.etcOf(etcPath(id))
		if want, known := m.goodEtc[id]; err != nil || known && etc != want {
			m.breach("%s is good, and its /etc is not the one it was good with: %q, %v; want %q", id, etc, err, want)
		}
	}
	for _, pattern := range halves {
		for _, f := range []disk.Files{m.disk.Now, m.run} {
			for _, name := range f.Glob(pattern) {
				m.breach("%s is left half done", name)
			}
		}
	}
}

// CheckLife is what must be true of a machine that had all the time it needs: it runs its last good root, and what is
// published if that can become good.
func (m *Machine) CheckLife() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rec == nil || m.stay || len(m.broken) > 0 {
		return
	}
	last := m.rec.LastGood()
	if m.mounted.id == switcher.HostRoot && last != switcher.HostRoot && m.rec.ResumeAttempts(last) < record.MaxAttempts {
		m.breach("%s is good, and the host stays on its host root", last)
	}
	id := m.publisher.roots[m.published]
	_, bad := m.rec.Bad[id]
	if m.mounted.id != id && !bad && m.ills[id] == Healthy && m.rec.Failed[id].Times < record.MaxAttempts &&
		m.rec.ResumeAttempts(id) < record.MaxAttempts && m.published != "" {
		m.breach("%s is published and healthy, and the host does not go there", m.published)
	}
}

// CheckCalm is what must be true besides where nothing but bad releases and people happened: a healthy root is bad
// only because somebody left it.
func (m *Machine) CheckCalm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rec == nil {
		return
	}
	for id, b := range m.rec.Bad {
		if m.ills[id] == Healthy && !b.RolledBack && !strings.HasPrefix(b.Reason, "left by the operator") {
			m.breach("%s is healthy and bad: %s", id, b.Reason)
		}
	}
}

type restName struct{}

func (restName) String() string { return "all of it" }
