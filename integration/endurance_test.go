//go:build lab && endurance

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A burden is what must not grow with each switch of a host.
type burden struct {
	Mounts, Images, Loops, Descriptors, Processes, Units, Run int
	MemoryKiB, RunKiB, DiskKiB                                int
}

// burdenScript measures the burden. It leaves out the history and the measured switches, which are meant to grow, and
// the host root mounted below the state directory, whose services write logs.
const burdenScript = `n() { wc -l | tr -d ' \n'; }
cat <<JSON
{"Mounts": $(n </proc/1/mountinfo),
"Images": $(grep -c 'updatectl:sha256-' /proc/1/mountinfo),
"Loops": $(grep -sl root.cfs /sys/block/loop*/loop/backing_file | n),
"Descriptors": $(ls /proc/1/fd | n),
"Processes": $(ls -d /proc/[0-9]* | n),
"Units": $(systemctl list-units --all --plain --no-legend | n),
"Run": $(find /run -xdev -not -path '/run/lab/*' | n),
"MemoryKiB": $(sed -n 's/VmRSS:[^0-9]*\([0-9]*\).*/\1/p' /proc/1/status),
"RunKiB": $(df --output=used -k /run | tail -1),
"DiskKiB": $(du -s --exclude=history.jsonl --exclude=switches.json -k /var/lib/updatectl | cut -f1)}
JSON`

// unitsLoaded returns the names of the units that PID 1 has loaded.
func (s *site) unitsLoaded() []string {
	s.Helper()
	return strings.Fields(s.host.Must(s.T, "sh", "-c",
		"systemctl list-units --all --plain --no-legend | cut -d' ' -f1"))
}

func (s *site) burden() burden {
	s.Helper()
	var b burden
	text := s.host.Must(s.T, "sh", "-ec", burdenScript)
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		s.Fatalf("cannot read the burden: %v\n%s", err, text)
	}
	return b
}

// slack is how much two measurements in the same root may differ, because systemd and the services do something
// meanwhile. Growth with each switch would be thirty times as much at the end.
var slack = burden{Mounts: 0, Images: 0, Loops: 0, Descriptors: 12, Processes: 6, Units: 12, Run: 12, MemoryKiB: 2048,
	RunKiB: 512, DiskKiB: 64}

// above describes the measures that exceed a first measurement by more than the slack.
func (b burden) above(first burden) string {
	var more []string
	for _, m := range []struct {
		name              string
		now, then, allows int
	}{
		{"mounts", b.Mounts, first.Mounts, slack.Mounts},
		{"mounted images", b.Images, first.Images, slack.Images},
		{"loop devices", b.Loops, first.Loops, slack.Loops},
		{"open files of PID 1", b.Descriptors, first.Descriptors, slack.Descriptors},
		{"processes", b.Processes, first.Processes, slack.Processes},
		{"units", b.Units, first.Units, slack.Units},
		{"entries in /run", b.Run, first.Run, slack.Run},
		{"KiB of PID 1's memory", b.MemoryKiB, first.MemoryKiB, slack.MemoryKiB},
		{"KiB in /run", b.RunKiB, first.RunKiB, slack.RunKiB},
		{"KiB in /var/lib/updatectl", b.DiskKiB, first.DiskKiB, slack.DiskKiB},
	} {
		if m.now > m.then+m.allows {
			more = append(more, fmt.Sprintf("%d %s, at first %d", m.now, m.name, m.then))
		}
	}
	return strings.Join(more, "; ")
}

// TestEndurance switches one host more than a hundred times between three images, with one rollback after every two
// applies. Before each switch, there are mounts of containers below /var. What is measured in the same root must not
// grow.
func TestEndurance(t *testing.T) {
	s := newSite(t, "endurance")
	s.settlesAtOnce()
	s.publish("2", "os/two:stable")
	third, thirdRoot := s.variant("three", "1", aFile("usr/share/lab/third",
		strings.Repeat("the third image\n", 100_000)))
	images := []struct{ reference, root, version string }{
		{s.registry.Host + "/os/server:stable", s.roots["1"], "1"},
		{s.registry.Host + "/os/two:stable", s.roots["2"], "2"},
		{third, thirdRoot, "1"},
	}
	at, switches := -1, 0
	apply := func() {
		t.Helper()
		at = (at + 1) % len(images)
		s.host.Must(t, "sh", "-ec", containerMounts)
		s.switches("apply", "--retry", "--allow-downgrade", "--from", images[at].reference)
		s.runs(images[at].root, images[at].version)
		switches++
	}
	back := func() {
		t.Helper()
		at = (at + len(images) - 1) % len(images)
		s.host.Must(t, "sh", "-ec", containerMounts)
		s.switches("rollback")
		s.runs(images[at].root, images[at].version)
		switches++
	}
	apply()
	var first burden
	var units []string
	// Three rounds of two applies and one rollback end in the root where they started.
	for round := 0; switches <= 100; round++ {
		for range len(images) {
			apply()
			apply()
			back()
		}
		now := s.burden()
		t.Logf("after %d switches: %+v", switches, now)
		switch more := now.above(first); {
		case round == 0: // everything that is created only once exists now
			first, units = now, s.unitsLoaded()
		case more != "":
			t.Fatalf("after %d switches: %s; units that are new: %v", switches, more,
				slices.DeleteFunc(s.unitsLoaded(), func(unit string) bool { return slices.Contains(units, unit) }))
		}
	}
	s.sound()
	if left := s.host.Must(t, "ls", "/var/lib/updatectl/roots"); len(strings.Fields(left)) > len(images) {
		t.Errorf("more roots are kept than the booted one, the one before and the one that was rolled back from:\n%s",
			left)
	}
}
