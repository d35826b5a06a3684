//go:build lab && power

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// A story is a host's way through every phase, with a recording of everything that it wrote to its disk.
type story struct {
	*site
	recording *lab.Recording
	marks     []mark
	steps     []step
	// brief is set where a switch takes a minute: then the next image is applied only after one cut in every phase,
	// and without a switch to the good root before.
	brief bool
}

// A mark is a file that was written and flushed in a root: from then on it has to be in that root's /etc and in /var,
// and in no other root's /etc unless it was carried over.
type mark struct {
	root string // the version of the root, which is part of the file's name
	at   int    // how many writes had completed
}

// A step is a change of the record or of the history.
type step struct {
	name string
	at   int // the index of its write
	next int // the index of the write of the next step
}

const (
	// historyText is the start of the history, as recordText is of the record.
	historyText = `{"at":"`
	// told is the prefix of the names of steps of the history.
	told, toldSwitching = "told ", "told switching"
)

// ailing is a service that fails in image 2 and in no other root, until it is removed.
const ailing = `[Unit]
Description=Cannot work with image 2
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'read version </usr/share/lab/version; test "$version" != 2'
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
`

// record takes a host through every phase: to image 1; to image 2 and back, because it is unhealthy; to image 2 again;
// rolled back by the operator; and garbage collection.
func record(t *testing.T, kind lab.Kind, name string) *story {
	t.Helper()
	s := &story{site: newSiteOf(t, lab.Options{Name: name, Kind: kind, Logged: true})}
	h := s.host
	s.mark("host")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	h.Must(t, "sh", "-ec",
		"cat > /etc/systemd/system/ailing.service <<'END'\n"+ailing+"END\nsystemctl enable --now ailing.service")
	s.mark("1")
	s.publish("2", "os/server:stable")
	s.updatectl(exitAvailable, "stage")
	before, err := h.Stamp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.switches("apply")
	s.backAfter(before)
	s.runs(s.roots["1"], "1")
	h.Must(t, "systemctl", "disable", "--now", "ailing.service")
	h.Must(t, "rm", "/etc/systemd/system/ailing.service")
	s.switches("apply", "--retry")
	s.runs(s.roots["2"], "2")
	s.mark("2")
	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	h.Must(t, "sh", "-ec", "cd /var/lib/updatectl/roots; cp -a "+s.roots["2"]+" sha256-"+strings.Repeat("0", 64)+
		"; mkdir ../objects/zz; head -c 3M /dev/urandom > ../objects/zz/stray; sync")
	s.updatectl(exitDone, "gc", "--all")
	s.mark("1")

	if s.recording, err = h.Record(); err != nil {
		t.Fatal(err)
	}
	s.findSteps()
	return s
}

// backAfter waits until the host is back from an unhealthy root.
func (s *story) backAfter(before lab.BootStamp) {
	s.Helper()
	stamp, err := s.host.Stamp(s.Context())
	for err == nil && stamp.SoftReboots < before.SoftReboots+2 {
		stamp, err = s.host.AwaitBoot(s.Context(), stamp)
	}
	if err != nil {
		s.Fatalf("the host is not rolled back: %v", err)
	}
}

// mark writes and flushes files whose names and contents say in which root they were written.
func (s *story) mark(root string) {
	s.Helper()
	s.host.Must(s.T, "sh", "-ec", fmt.Sprintf("mkdir -p /etc/lab; for f in /etc/lab/of-%[1]s /var/lib/of-%[1]s; "+
		"do echo %[1]s >$f; sync $f; done; sync", root))
	l, err := s.host.Writes()
	if err != nil {
		s.Fatal(err)
	}
	s.marks = append(s.marks, mark{root, len(l.Writes)})
}

// findSteps finds the writes that change the record or the history.
func (s *story) findSteps() {
	s.Helper()
	l := s.recording
	for _, text := range []string{recordText, historyText} {
		found, err := l.Find(s.marks[0].at, text)
		if err != nil {
			s.Fatal(err)
		}
		for _, i := range found {
			content, err := l.Text(i)
			if err != nil {
				s.Fatal(err)
			}
			s.steps = append(s.steps, step{name: s.called(content), at: i})
		}
	}
	slices.SortFunc(s.steps, func(a, b step) int { return a.at - b.at })
	for i := range s.steps {
		if s.steps[i].next = len(l.Writes); i+1 < len(s.steps) {
			s.steps[i].next = s.steps[i+1].at
		}
	}
}

// called returns the name of a step from what is written.
func (s *story) called(content string) string {
	if !strings.HasPrefix(content, recordText) {
		lines := strings.Split(strings.TrimSpace(content), "\n")
		var event struct{ Event, Root string }
		_ = json.Unmarshal([]byte(lines[len(lines)-1]), &event)
		return fmt.Sprintf("%s%s %s", told, event.Event, s.version(event.Root))
	}
	r, err := parseState(content)
	if err != nil {
		return "a record cut short"
	}
	if r.Phase == "armed" || r.Phase == "trying" {
		return fmt.Sprintf("%s %s %s", r.Phase, r.Switch.Verb, s.version(r.Switch.Target))
	}
	return fmt.Sprintf("%s %s", r.Phase, s.version(r.Good[len(r.Good)-1]))
}

// state is the part of the record that this test reads.
type state struct {
	Phase  string
	Good   []string
	Switch struct{ Verb, Target string }
}

func parseState(text string) (state, error) {
	var r state
	err := json.Unmarshal([]byte(text), &r)
	if err == nil && len(r.Good) == 0 {
		err = fmt.Errorf("no root is good in %q", text)
	}
	return r, err
}

func (s *story) version(root string) string {
	for version, id := range s.roots {
		if id == root {
			return version
		}
	}
	return root
}

// A moment is where the power is cut.
type moment struct {
	name string
	cut  lab.PowerCut
}

// moments returns where the power is cut at a step: as soon as its first part may be on the disk, half way to the next
// step, and when the next one is being written; each with none of what was not flushed, or with a part of it. During a
// switch, while services stop, /etc is merged and the root is armed, the power is cut at many flushes.
func (s *story) moments(at step) []moment {
	var flushes []int
	for i := at.at; i < at.next; i++ {
		if s.recording.Writes[i].Flush {
			flushes = append(flushes, i+1)
		}
	}
	seed := uint64(at.at)
	list := []moment{{"torn", lab.PowerCut{After: at.at + 1, Seed: seed}}}
	n := len(flushes)
	switch {
	case n == 0:
		return list
	case strings.HasPrefix(at.name, toldSwitching):
		for i := range underWay {
			cut := lab.PowerCut{After: flushes[n*i/underWay]}
			if i%2 == 1 { // some writes after the flush may have reached the disk
				cut.After, cut.Seed = min(cut.After+8, at.next), seed
			}
			list = append(list, moment{fmt.Sprintf("%d of %d", i, underWay), cut})
		}
	case !strings.HasPrefix(at.name, told):
		list = append(list, moment{"written", lab.PowerCut{After: flushes[0]}},
			moment{"left", lab.PowerCut{After: at.next, Seed: seed}})
	}
	list = append(list, moment{halfWay, lab.PowerCut{After: flushes[n/2]}})
	slices.SortStableFunc(list, func(a, b moment) int { return a.cut.After - b.cut.After })
	return slices.CompactFunc(list, func(a, b moment) bool { return a.cut == b.cut })
}

// halfWay is a moment of every step that flushes something.
const halfWay = "half way"

// underWay is how often the power is cut during a switch.
const underWay = 8

// survives boots the host as a cut leaves it, and expects it on a good root and whole; with on, it also has to switch
// again.
func (s *story) survives(c lab.PowerCut, on bool) {
	s.Helper()
	h, ctx := s.host, s.Context()
	fault, err := h.Rewind(ctx, s.recording, c)
	if err != nil {
		s.Fatal(err)
	}
	if fault != "" {
		s.Errorf("the file system is damaged:\n%s", fault)
	}
	if _, err := h.Boot(ctx); err != nil {
		s.Fatal(err)
	}
	v := s.settled()
	s.landed(v)
	v = s.sound()
	good := v.Good[0].Root
	switch {
	case v.Booted.Root == good:
	case s.brief:
		if good != "host" {
			s.has(good, "/var/lib/updatectl/roots/"+good+"/etc", c)
		}
		if on {
			s.goesOn(v)
		}
		return
	default:
		s.switches("rollback") // returns to the good root
		if v = s.settled(); v.Booted.Root != good {
			s.Fatalf("the host does not resume its good root %s, it runs %s", good, v.Booted.Root)
		}
	}
	s.has(good, "/etc", c)
	if on {
		s.goesOn(v)
	}
}

// landed expects the host in the root to which a full reboot has to bring it.
func (s *story) landed(v status) {
	s.Helper()
	good := v.Good[0].Root
	resumes := s.host.Run(s.Context(), "test", "-e", "/usr/lib/systemd/system/updatectl-resume.service").Code == 0
	switch {
	case v.Booted.Root == good:
	case v.Booted.Root != "host" || resumes:
		s.Errorf("the host runs %s, its good root is %s", s.version(v.Booted.Root), s.version(good))
	default:
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "landed here") {
			s.Errorf("status does not say how the host got here:\n%s", text)
		}
	}
	if failed, err := s.host.FailedUnits(s.Context()); err != nil ||
		len(slices.DeleteFunc(failed, func(unit string) bool {
			return unit == "updatectl-confirm.service" // it reports a switch that the power cut ended
		})) != 0 {
		s.Errorf("failed units: %v (%v)", failed, err)
	}
}

// has expects the marks that were flushed before the cut in /var and in the /etc of their root, and in no other /etc.
func (s *story) has(root, etc string, c lab.PowerCut) {
	s.Helper()
	for _, m := range s.marks {
		if m.at > c.After {
			continue
		}
		s.host.Must(s.T, "grep", "-qx", m.root, "/var/lib/of-"+m.root)
		if m.root == s.version(root) {
			s.host.Must(s.T, "grep", "-qx", m.root, etc+"/lab/of-"+m.root)
		}
	}
	if s.version(root) == "1" {
		s.host.Must(s.T, "test", "!", "-e", etc+"/lab/of-2")
	}
	if s.version(root) != "host" {
		s.host.Must(s.T, "test", "!", "-e", etc+"/lab/of-host")
	}
}

// goesOn lets the host apply the newest image, or roll back from it.
func (s *story) goesOn(v status) {
	s.Helper()
	to := "2"
	if v.Booted.Root == s.roots["2"] {
		to = s.version(v.Good[1].Root)
		s.switches("rollback")
	} else {
		// The service that fails in image 2 may have been carried over.
		s.host.Must(s.T, "sh", "-ec",
			"rm -f /etc/systemd/system/ailing.service /etc/systemd/system/*/ailing.service; "+
				"systemctl daemon-reload; systemctl reset-failed")
		s.switches("apply", "--retry")
	}
	s.runs(s.roots[to], to)
	s.has(s.roots[to], "/etc", lab.PowerCut{})
}

// list returns the names of the steps, for whoever reads a failure.
func (s *story) list() string {
	var text strings.Builder
	for _, at := range s.steps {
		fmt.Fprintf(&text, "%7d %s\n", at.at, at.name)
	}
	return text.String()
}

// cuts cuts the power at all moments that are picked.
func (s *story) cuts(t *testing.T, picked func(step, moment) bool) {
	on := func(step, moment) bool { return true }
	if s.brief {
		on = inEveryPhase()
	}
	if len(s.steps) < 15 {
		t.Fatalf("only %d steps: this shows nothing\n%s", len(s.steps), s.list())
	}
	t.Logf("%d steps in %d writes\n%s", len(s.steps), len(s.recording.Writes), s.list())
	for i, at := range s.steps {
		for _, m := range s.moments(at) {
			if !picked(at, m) {
				continue
			}
			t.Run(fmt.Sprintf("%02d %s/%s", i, at.name, m.name), func(t *testing.T) {
				sub := *s
				sub.site = s.in(t)
				sub.survives(m.cut, on(at, m))
			})
		}
	}
}

// inEveryPhase picks one cut in each phase, and during each kind of switch.
func inEveryPhase() func(step, moment) bool {
	seen := map[string]bool{}
	return func(at step, m moment) bool {
		what := strings.Fields(at.name)
		kind := what[0]
		if kind == "armed" || kind == "trying" {
			kind += what[1]
		}
		if m.name != halfWay || what[0] == strings.TrimSpace(told) || seen[kind] {
			return false
		}
		seen[kind] = true
		return true
	}
}

// TestPowerCuts cuts the power at every step of the record and of the history, at several moments of each.
func TestPowerCuts(t *testing.T) {
	beside(t, lab.Nspawn)
	record(t, lab.Nspawn, "power").cuts(t, func(step, moment) bool { return true })
}

// halfWayOfEveryRecord picks one cut for each change of the record, and one during each switch.
func halfWayOfEveryRecord(at step, m moment) bool {
	return m.name == halfWay && (!strings.HasPrefix(at.name, told) || strings.HasPrefix(at.name, toldSwitching))
}

// TestVMPowerCuts cuts the power of a machine at every step of the record: kernel, file system and boot are the host's
// own.
func TestVMPowerCuts(t *testing.T) {
	beside(t, lab.QEMU)
	s := record(t, lab.QEMU, "vmpower")
	s.brief = true
	s.cuts(t, halfWayOfEveryRecord)
}
