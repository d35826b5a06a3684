//go:build lab

package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

const (
	exitUnhealthy = 40
	guardUnit     = "updatectl-guard.service"
)

// hastens configures short deadlines: a root has seconds to become good.
func (s *site) hastens(text string) {
	s.Helper()
	if err := s.host.WriteFile("/etc/updatectl/conf.d/50-haste.toml", text, 0o644); err != nil {
		s.Fatal(err)
	}
}

// unhurried are the deadlines of roots that are good, however busy the machine is.
const unhurried = "[health]\ndeadline = \"3m\"\nsettle = \"1s\"\n"

// haste are the deadlines of most roots in these tests.
const haste = "[health]\ndeadline = \"24s\"\nsettle = \"1s\"\n[switch]\nshutdown-deadline = \"20s\"\n"

// tries switches the host to a new root, NAME of version 1, which is on trial for two minutes: NAME.service never
// finishes starting. It returns the root. Later roots of the test have short deadlines again.
func (s *site) tries(name string) (root string) {
	s.Helper()
	s.hastens("[health]\ndeadline = \"2m\"\nsettle = \"1s\"\n")
	s.Cleanup(func() { s.hastens(haste) })
	image, root := s.variant(name, "1", hangs(name+".service", false)...)
	s.sends("1", "apply", "--from", image)
	s.awaitsConfirm()
	return root
}

// hangs returns the entries of a unit that never finishes starting; multi-user.target waits for it or does not.
func hangs(name string, waitedFor bool) []layerEntry {
	text := "[Unit]\nDescription=Never done\n"
	if !waitedFor {
		text += "DefaultDependencies=no\n" // or the target that wants it would be ordered after it
	}
	text += "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n"
	dir := "usr/lib/systemd/system/"
	return []layerEntry{aFile(dir+name, text), aLink(dir+"multi-user.target.wants/"+name, "../"+name)}
}

// comesBack runs a command that applies an image, and expects the host to be back, two soft reboots later, in the root
// that it came from.
func (s *site) comesBack(within time.Duration, args ...string) status {
	s.Helper()
	was := s.status().Booted.Root
	before, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	start := time.Now()
	if r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...); r.Code != 0 && r.Code < 128 {
		s.Fatalf("updatectl %s: %s", strings.Join(args, " "), r)
	}
	s.restartsTwice(before, within)
	s.Logf("back after %v", time.Since(start).Round(time.Second))
	s.upAgain()
	v := s.settled()
	if v.Booted.Root != was {
		s.Fatalf("%s is booted, want %s again", v.Booted.Root, was)
	}
	if v.Last == nil || v.Last.Outcome != "unhealthy" || v.Last.Back != was {
		s.Fatalf("the last switch is %+v, want unhealthy and back to %s\n%s", v.Last, was,
			s.host.Run(s.Context(), "cat", "/var/lib/updatectl/state.json"))
	}
	if bad, ok := v.Bad[v.Last.Target]; !ok || bad.Reason != v.Last.Reason {
		s.Errorf("bad are %+v, want %s: %s", v.Bad, v.Last.Target, v.Last.Reason)
	}
	s.unarmed()
	s.unguarded()
	if failed, err := s.host.FailedUnits(s.Context()); err != nil || len(failed) != 0 {
		s.Errorf("failed units: %v (%v)", failed, err)
	}
	s.Logf("reason: %s", v.Last.Reason)
	return v
}

// restartsTwice waits until the host has soft-rebooted twice since a stamp was taken: into a root and back.
func (s *site) restartsTwice(since lab.BootStamp, within time.Duration) {
	s.Helper()
	var now lab.BootStamp
	var err error
	if !s.host.Await(s.T, within, func() bool {
		now, err = s.host.Stamp(s.Context())
		return err == nil && now.BootID == since.BootID && now.SoftReboots >= since.SoftReboots+2
	}) {
		s.Fatalf("the host has not come back after %v: %+v (%v), %s\n%s", within, now, err,
			s.host.Run(s.Context(), "cat", "/var/lib/updatectl/state.json"), s.host.Console())
	}
}

// upAgain waits until all units are started.
func (s *site) upAgain() {
	s.Helper()
	if !s.host.Await(s.T, s.host.Patience(), func() bool { return isUp(s.systemState()) }) {
		s.Fatalf("the host does not come up: %s", s.systemState())
	}
}

func (s *site) systemState() string {
	return strings.TrimSpace(s.host.Run(s.Context(), "systemctl", "is-system-running").Stdout)
}

// isUp reports whether, in a state of the system, all units have started or failed.
func isUp(state string) bool { return state == "running" || state == "degraded" }

// unguarded expects the guard to end soon.
func (s *site) unguarded() {
	s.Helper()
	state := func() string {
		return strings.TrimSpace(s.host.Run(s.Context(), "systemctl", "is-active", guardUnit).Stdout)
	}
	if !s.host.Await(s.T, s.host.Patience(), func() bool { return state() == "inactive" }) {
		s.Fatalf("the guard is still %s", state())
	}
}

// blames expects every command to report why the host was rolled back.
func (s *site) blames(v status, reason string) {
	s.Helper()
	if !strings.Contains(v.Last.Reason, reason) {
		s.Errorf("the reason is %q, want %q in it", v.Last.Reason, reason)
	}
	s.refused(exitUnhealthy, v.Last.Target+": "+v.Last.Reason, "apply --retry", "confirm")
	s.refused(exitUnhealthy, v.Last.Back, "", "confirm") // until the next switch
	for _, command := range []string{"status", "history"} {
		if text := s.updatectl(exitDone, command).Stdout; !mentions(text, v.Last.Reason) {
			s.Errorf("%s does not say %q:\n%s", command, reason, text)
		}
	}
}

// toldAsWayBack expects the history to end with an unhealthy root and the switch back, whoever started it.
func (s *site) toldAsWayBack(v status) {
	s.Helper()
	var story []historyEvent
	for _, e := range s.history() {
		if e.Event == "unhealthy" || e.Event == "switching" {
			story = append(story, e)
		}
	}
	story = story[max(0, len(story)-3):]
	if len(story) != 3 || story[0].Event != "switching" || story[0].Root != v.Last.Target || story[0].Verb == "back" ||
		story[1].Event != "unhealthy" || story[1].Root != v.Last.Target || story[1].Version == "" ||
		story[1].Reason != v.Last.Reason ||
		story[2].Event != "switching" || story[2].Root != v.Last.Back || story[2].Verb != "back" ||
		(story[2].Version == "") != (v.Last.Back == "host") {
		s.Errorf("the history ends with %+v", story)
	}
	for i := range story[1:] {
		if story[i+1].At.Before(story[i].At) {
			s.Errorf("the history goes back in time: %+v", story)
		}
	}
}

// TestWayBack: a root that does not become good is rolled back automatically, whatever is wrong with it.
func TestWayBack(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "back")
	s.hastens(haste)
	s.publish("2", "os/server:stable")
	one := s.roots["2"]
	const limit = 5 * time.Minute // a machine beside the host may leave it little of the processors

	t.Run("not healthy", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("late", "1", hangs("late.service", false)...)
		v := s.comesBack(limit, "apply", "--from", image)
		s.blames(v, "late.service")
		s.toldAsWayBack(v)
		if v.Last.Target != root {
			t.Errorf("%s is blamed, want %s", v.Last.Target, root)
		}
		if why := s.skipped("--from", image); !strings.Contains(why, "late.service") {
			t.Errorf("an unattended apply skips the image because %q", why)
		}
		s.refused(exitBlocked, "late.service", "--retry", "apply", "--from", image)
		s.refused(exitBlocked, "late.service", "--retry", "rollback", root)
		t.Log("a newer image is applied")
		s.hastens(unhurried)
		s.switches("apply", "--unattended")
		s.runs(one, "2")
		s.unguarded()
		s.updatectl(exitDone, "confirm")
		s.hastens(haste)
	})
	dead := func(name, reason string, entries ...layerEntry) {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			image, _ := s.variant(strings.Fields(name)[0], "1", entries...)
			v := s.comesBack(limit, "apply", "--from", image)
			s.blames(v, reason)
			s.toldAsWayBack(v)
			if got := s.host.Must(t, "cat", "/usr/share/lab/version", "/run/lab-identity"); got != "2\n2" {
				t.Errorf("booted is %q", got)
			}
		})
	}
	unit := func(name string) string { return "etc/systemd/system/" + name }
	dead("hangs in a start job", "wait.service", hangs("wait.service", true)...)
	dead("dbus is masked and it hangs", "wait.service", append(hangs("wait.service", true),
		aLink(unit("dbus.service"), "/dev/null"), aLink(unit("dbus.socket"), "/dev/null"))...)
	broken := s.agentFiles("")
	for i := range broken {
		if broken[i].name == "usr/bin/updatectl" {
			broken[i].text = "#!/bin/sh\nexit 1\n"
		}
	}
	dead("broken agent", confirmUnit, broken...)
	dead("emergency shell", "emergency.target", aFile("usr/lib/systemd/system/lab-mount.service",
		"[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\nOnFailure=emergency.target\n"+
			"OnFailureJobMode=replace-irreversibly\n[Service]\nType=oneshot\nExecStart=/bin/false\n"),
		aLink("usr/lib/systemd/system/local-fs.target.requires/lab-mount.service", "../lab-mount.service"))
	dead("read-only state", "read-only file system",
		early("lab-var.service", "mount --bind /var /var; mount -o remount,ro,bind /var")...)
	const foreign = "mkdir -p /run/nextroot; mount -t tmpfs somebody /run/nextroot"
	dead("not healthy, and something else is armed", "late.service",
		append(early("foreign.service", foreign), hangs("late.service", false)...)...)

	var byOperator string // the reason
	t.Run("rolled back while on trial", func(t *testing.T) {
		s := s.in(t)
		root := s.tries("judged")
		v := s.status()
		if v.Phase != "trying" || v.Switch == nil || v.Switch.Target != root || v.Switch.Back != one ||
			time.Until(v.Switch.Deadline) > 2*time.Minute || time.Until(v.Switch.Deadline) < time.Minute {
			t.Errorf("status is %+v, the switch %+v", v, v.Switch)
		}
		if !slices.Contains(v.Starting, "judged.service") {
			t.Errorf("still starting are %v", v.Starting)
		}
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "judged.service") ||
			!strings.Contains(text, one[:19]) {
			t.Errorf("status does not show what is starting and where the host returns to:\n%s", text)
		}
		s.refused(exitBlocked, "(confirm", "", "apply")
		t.Log("a rollback that is refused leaves the root on trial")
		s.refused(exitError, "no such root", "", "rollback", "sha256-0000")
		s.awaitsConfirm()
		s.refused(exitBlocked, one, "", "rollback", "host")
		s.awaitsConfirm()
		s.inhibit() // no lock delays it, as with an automatic rollback
		s.switches("rollback")
		s.runs(one, "2")
		byOperator = s.rolledBackFrom(root, one)
		s.unguarded()
	})

	t.Run("rolled back without a guard", func(t *testing.T) {
		s := s.in(t)
		root := s.tries("unwatched")
		s.host.Must(t, "systemctl", "stop", guardUnit)
		release := s.inhibit()
		s.refused(exitBlocked, "the backup runs", "", "rollback")
		release()
		s.awaitsConfirm()
		s.switches("rollback")
		s.runs(one, "2")
		if v := s.status(); byOperator == "" || v.Bad[root].Reason != byOperator {
			t.Errorf("bad are %+v, want the reason %q", v.Bad, byOperator)
		}
		s.unguarded()
	})
	t.Run("confirm is killed while the root is on trial", func(t *testing.T) {
		s := s.in(t)
		root := s.tries("killed")
		const pid = "systemctl show --property MainPID --value updatectl-confirm.service"
		was := s.host.Must(t, "sh", "-c", pid)
		s.host.Must(t, "systemctl", "kill", "--signal=KILL", "updatectl-confirm.service")
		if !s.host.Await(t, s.host.Patience(), func() bool {
			now := s.host.Must(t, "sh", "-c", pid)
			return now != was && now != "0"
		}) {
			t.Fatal("systemd does not start confirm again")
		}
		s.host.Must(t, "sh", "-ec", "systemctl stop killed.service; systemctl reset-failed killed.service")
		s.runs(root, "1")
		s.unguarded()
		s.switches("rollback")
		s.runs(one, "2")
	})

	// As when a shutdown is cancelled too late, when PID 1 already carries it out.
	takenBack := []string{"", `/bin/sed -i 's/"phase": "armed"/"phase": "staged"/' /var/lib/updatectl/state.json`}
	t.Run("cancelled too late", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("too-late", "1")
		s.armsBy(takenBack...)
		s.switches("apply", "--from", image)
		s.armsAgain()
		s.host.Await(t, s.host.Patience(), func() bool { return s.status().Phase != "staged" })
		s.runs(root, "1")
		s.unguarded()
		s.switches("rollback")
		s.runs(one, "2")
	})
	t.Run("cancelled too late, and the new root hangs", func(t *testing.T) {
		s := s.in(t)
		image, _ := s.variant("too-late-hangs", "1", hangs("endless.service", true)...)
		s.armsBy(takenBack...)
		s.blames(s.comesBack(limit, "apply", "--from", image), "endless.service")
		s.armsAgain()
	})
	t.Run("healthy, and something else is armed", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("armed", "1", early("foreign.service", foreign)...)
		s.switches("apply", "--from", image)
		if v := s.settled(); v.Booted.Root != root || v.Phase != "good" {
			t.Fatalf("want %s booted and good, status is %+v", root, v)
		}
		s.refused(exitBlocked, "somebody else armed", "", "rollback")
		s.host.Must(t, "umount", "/run/nextroot")
		s.switches("rollback")
		s.runs(one, "2")
	})
}

// awaitsConfirm waits until the confirming unit is active.
func (s *site) awaitsConfirm() {
	s.Helper()
	if !s.host.Await(s.T, s.host.Patience(), s.confirms) {
		s.Fatal("the confirming unit is not active")
	}
}

// awaitsRoot waits until the host has the files of a version and has started its units, whether it is up or not.
func (s *site) awaitsRoot(version string) {
	s.Helper()
	if !s.host.Await(s.T, eventually, func() bool {
		r := s.host.Run(s.Context(), "cat", "/run/lab-identity", "/usr/share/lab/version")
		return r.Stdout == version+"\n"+version+"\n"
	}) {
		s.Fatalf("the root of version %s does not come up\n%s", version, s.host.Console())
	}
}

// sends runs a command that applies an image, and waits until the host is in the new root, whether it comes up or not.
func (s *site) sends(version string, args ...string) {
	s.Helper()
	if r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...); r.Code != 0 && r.Code < 128 {
		s.Fatalf("updatectl %s: %s", strings.Join(args, " "), r)
	}
	s.awaitsRoot(version)
}

// TestWayBackWithoutHelp: the guard rolls back where nothing can be written, and where PID 1 does not answer.
func TestWayBackWithoutHelp(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "alone")
	h := s.host
	s.hastens(haste)
	s.switches("apply")
	one := s.roots["1"]
	s.runs(one, "1")

	t.Run("the state is full", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("fills", "2", early("lab-fill.service", fillVar)...)
		s.sends("2", "apply", "--from", image)
		if r := h.Run(t.Context(), "sh", "-c", "echo text > /var/lib/updatectl/more"); r.Code == 0 {
			t.Fatal("the state is not full: this shows nothing")
		}
		s.awaitsRoot("1")
		s.upAgain()
		s.unguarded()
		t.Log("the record has what the guard did as soon as there is space")
		h.Must(t, "sh", "-ec", "rm -f /var/fill /var/fill2 /var/lib/updatectl/more; systemctl reset-failed; "+
			"systemctl restart updatectl-confirm")
		v := s.settled()
		if v.Booted.Root != one || v.Phase == "trying" || v.Last == nil || v.Last.Outcome != "unhealthy" ||
			v.Last.Target != root || v.Last.Back != one {
			t.Fatalf("status is %+v, last %+v", v, v.Last)
		}
		s.blames(v, "no space left on device")
		s.unarmed()
	})
	t.Run("PID 1 is dead", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("dies", "2", hangs("wait.service", true)...)
		s.hastens("[health]\ndeadline = \"5m\"\n")
		s.sends("2", "apply", "--from", image)
		if err := h.Deafen(); err != nil { // while every service runs
			t.Fatal(err)
		}
		if _, err := h.AwaitReboot(t.Context(), 5*time.Minute); err != nil {
			t.Fatalf("%v\n%s", err, h.Console())
		}
		v := s.settles()
		s.runs(one, "1")
		if bad := v.Bad[root]; !strings.Contains(bad.Reason, "2m0s") { // how long systemd has not answered
			t.Errorf("bad are %+v", v.Bad)
		}
		s.blames(v, "systemd")
	})
}
