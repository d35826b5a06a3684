package simulation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// load is what must not grow with each switch of a machine.
type load struct {
	// Disk are the names on the disk, Run those in /run.
	Disk, Run []string
	// Record is the size of the record without its values, whose length varies: see sizeOf.
	Record int
	// Processes and Locks are left over from commands. Armed is a root at /run/nextroot.
	Processes, Locks int
	Armed            bool
}

// load measures a machine that rests.
func (m *Machine) load(t *testing.T) load {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	l := load{
		Run: m.run.Below("/run"), Processes: len(m.running), Locks: len(m.locks), Armed: m.armed != nil || m.half,
	}
	for name := range m.disk.Now {
		l.Disk = append(l.Disk, name)
	}
	slices.Sort(l.Disk)
	var rec map[string]any
	if err := json.Unmarshal(m.disk.Now[record.RecordFile].Content, &rec); err != nil {
		t.Fatal(err)
	}
	l.Record = sizeOf(rec)
	return l
}

// sizeOf counts the members of a document, and the bytes of their names.
func sizeOf(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			n += len(name) + 1 + sizeOf(member)
		}
	case []any:
		for _, member := range v {
			n += 1 + sizeOf(member)
		}
	}
	return n
}

// TestThousandSwitches: a host that is switched back and forth between three images, with a rollback after every two
// applies, looks at the end as it did after the first round: on its disk, in /run, in the record. With -every, it is
// a thousand switches.
func TestThousandSwitches(t *testing.T) {
	most := 150
	if *every {
		most = 1000
	}
	o := ordinary()
	o.Story = false
	versions := []string{"v1", "v2", "v3"}
	m := playFrom(t, "v3", o, func(m *Machine) {
		at, switches := 2, 0
		move := func(by int, run func(version string) *Command) {
			at = (at + by + len(versions)) % len(versions)
			run(versions[at]).Wait()
			m.rest()
			if got := m.Booted(); got != versions[at] {
				t.Fatalf("after %d switches, %s runs, want %s", switches, got, versions[at])
			}
			switches++
		}
		apply := func(version string) *Command {
			return m.Apply(agent.ApplyOptions{
				Retry: true, Wait: true, AllowDowngrade: true, From: releases.reference(version),
			})
		}
		var first load
		for switches < most && !t.Failed() {
			for range versions {
				move(1, apply)
				move(1, apply)
				move(-1, m.RollBack)
			}
			m.CheckRest()
			if now := m.load(t); first.Record == 0 {
				first = now
			} else if more := now.above(first); more != "" {
				t.Errorf("after %d switches there are %s", switches, more)
			}
		}
		t.Logf("%d switches: %d names on the disk, %d in /run, a record of %d", switches, len(first.Disk),
			len(first.Run), first.Record)
	})
	expect(t, m, versions[2])
}

// above describes what there is beyond a first measurement.
func (l load) above(first load) string {
	isNew := func(now, then []string) []string {
		return slices.DeleteFunc(slices.Clone(now), func(name string) bool { return slices.Contains(then, name) })
	}
	var more []string
	if len(l.Disk) > len(first.Disk) {
		more = append(more, fmt.Sprintf("new names on the disk: %v", isNew(l.Disk, first.Disk)))
	}
	if len(l.Run) > len(first.Run) {
		more = append(more, fmt.Sprintf("new names in /run: %v", isNew(l.Run, first.Run)))
	}
	if l.Record > first.Record {
		more = append(more, fmt.Sprintf("a record of %d, at first %d", l.Record, first.Record))
	}
	if l.Processes > 0 || l.Locks > 0 || l.Armed {
		more = append(more, fmt.Sprintf("%d processes, %d locks, a root that is armed: %v", l.Processes, l.Locks, l.Armed))
	}
	return strings.Join(more, "; ")
}
