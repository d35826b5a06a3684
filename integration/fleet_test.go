//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// logHook keeps the events that it is called for.
const logHook = "#!/bin/sh\necho \"$1 $UPDATECTL_VERSION\" >> /var/log/hooks\n"

// eventually is how long a host may take for what follows a switch, on a machine with many others.
const eventually = 5 * time.Minute

// TestFleetTurns: two hosts share one slot of a lock server whose slots are in etcd. The timer's units keep to the
// window; a bad image stops after the first host, which keeps the slot until a person gives it back; and neither the
// lock server nor etcd leaves anything stuck when they come back.
func TestFleetTurns(t *testing.T) {
	beside(t, lab.Nspawn)
	etcd, err := lab.StartEtcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Stop)
	locks, err := lab.StartFleetLock(t.Context(), etcd, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { locks.Stop() })
	first := newSite(t, "fleet1")
	second := *first
	second.boot(lab.Options{Name: "fleet2"}, nil)
	for _, s := range []*site{first, &second} {
		s.hastens("[health]\ndeadline = \"90s\"\nsettle = \"1s\"\n" + fmt.Sprintf("[fleetlock]\nurl = %q\n", locks.URL))
		s.program("/etc/updatectl/hooks.d/log", logHook)
	}

	first.window("2020-01-01")
	first.host.Must(t, "systemctl", "start", "updatectl-apply.service")
	if v := first.fleet(); v.Unattended.Reason != "window" || v.Unattended.Checked.IsZero() || v.Staged == nil {
		t.Errorf("outside the window, the timer left %+v and staged %+v", v.Unattended, v.Staged)
	}
	first.told("before-fetch")
	first.window("")
	first.switches("apply", "--unattended")
	first.runs(first.roots["1"], "1")
	first.free()
	first.told("before-switch 1", "good 1")

	// The second image is not healthy on the first host.
	first.publish("2", "os/server:stable")
	first.program("/etc/updatectl/health.d/required.d/version", "#!/bin/sh\n! grep -q 2 /usr/share/lab/version\n")
	before, err := first.host.Stamp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first.host.Run(t.Context(), "updatectl", "apply")
	first.restartsTwice(before, eventually)
	first.upAgain()
	first.settled()
	first.told("before-fetch", "before-switch 2", "bad 2", "rolled-back 2")
	if v := first.fleet(); v.Slot == nil || v.Slot.Failed == "" {
		t.Fatalf("after a bad image, the host has the slot %+v", v.Slot)
	}
	second.refused(exitBlocked, "the lock server gave no slot", "", "apply")
	second.told("before-fetch") // nobody was drained for nothing

	// The lock server and etcd restart, and nothing is lost; the person who gives the slot back comes too early once.
	locks.Stop()
	first.updatectl(exitError, "slot", "give-back")
	etcd.Stop()
	if err := etcd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := locks.Start(); err != nil {
		t.Fatal(err)
	}
	second.refused(exitBlocked, "the lock server gave no slot", "", "apply")
	first.updatectl(exitDone, "slot", "give-back")
	second.switches("apply")
	second.runs(first.roots["2"], "2")
	second.free()
	second.told("before-switch 2", "good 2")

	// A pause holds everything but a way back.
	second.updatectl(exitDone, "pause", "--reason", "holidays")
	second.refused(exitBlocked, "updates are paused by root: holidays", "", "switch", first.roots["2"])
	second.switches("rollback")
	second.updatectl(exitDone, "unpause")
	second.told("rolled-back") // the host root has no version
	first.logged(map[string]string{
		"staged": "45de0d2c3c20436a9d462fad17fcfc0f", "switching": "8ea018daab8d41f693074a125a2afcba",
		"good": "419e027391da4ee3a06785de20d3a052", "unhealthy": "4f1eb634a571435b9d1e05d8fbe7ce8f",
		"waiting": "172f095490da446dbac8211f0cd29f6d", "slot-kept": "f7ca0c2dbb27476095a4da21ccbe5423",
	})
}

// logged checks that the journal has these events, each with its identity in every entry.
func (s *site) logged(identities map[string]string) {
	s.Helper()
	for name, id := range identities {
		var found []string
		out := s.host.Must(s.T, "journalctl", "_UID=0", "UPDATECTL_EVENT="+name, "--output=json", "--no-pager")
		for line := range strings.Lines(out) {
			var entry struct {
				ID string `json:"MESSAGE_ID"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				s.Fatalf("%v: %s", err, line)
			}
			found = append(found, entry.ID)
		}
		slices.Sort(found)
		if found = slices.Compact(found); !slices.Equal(found, []string{id}) {
			s.Errorf("the entries of %s have the identities %q, want %s", name, found, id)
		}
	}
}

// fleetStatus is the part of status that is about the fleet.
type fleetStatus struct {
	Staged     *struct{ Root string }
	Slot       *struct{ Wants, Failed string }
	Unattended struct {
		Reason  string
		Checked time.Time
	}
}

func (s *site) fleet() (v fleetStatus) {
	s.Helper()
	s.answer(&v, exitDone, "status")
	return v
}

// free waits until the host holds no slot.
func (s *site) free() {
	s.Helper()
	if !s.host.Await(s.T, eventually, func() bool { return s.fleet().Slot == nil }) {
		s.Errorf("the host keeps its slot: %+v\n%s", s.fleet().Slot, s.host.Run(s.Context(), "journalctl", "-n", "50",
			"-u", "updatectl-arrived"))
	}
}

// window configures when the timer may switch, "" for at any time.
func (s *site) window(start string) {
	s.Helper()
	list := "[]"
	if start != "" {
		list = fmt.Sprintf("[%q]", start)
	}
	if err := s.host.WriteFile("/etc/updatectl/conf.d/70-window.toml", "[schedule]\nswitch = "+list+"\n",
		0o644); err != nil {
		s.Fatal(err)
	}
}

// program writes a program.
func (s *site) program(name, text string) {
	s.Helper()
	s.host.Must(s.T, "mkdir", "-p", filepath.Dir(name))
	if err := s.host.WriteFile(name, text, 0o755); err != nil {
		s.Fatal(err)
	}
}

// told waits until the hooks were called for these events since the last look, and for no others.
func (s *site) told(want ...string) {
	s.Helper()
	var got string
	if !s.host.Await(s.T, eventually, func() bool {
		got = strings.TrimSpace(s.host.Run(s.Context(), "sed", "s/ *$//", "/var/log/hooks").Stdout)
		return strings.Count(got, "\n") >= len(want)-1 && got != ""
	}) || got != strings.Join(want, "\n") {
		s.Errorf("the hooks were called for %q, want %q", got, want)
	}
	s.host.Must(s.T, "rm", "-f", "/var/log/hooks")
}
