//go:build lab

package integration

import (
	"strings"
	"testing"
	"time"
)

const (
	exitUnhealthy = 40
	guardUnit     = "updatectl-guard.service"
)

// hastens sets short deadlines on the host: a root has seconds to become good.
func (s *site) hastens(text string) {
	s.Helper()
	if err := s.host.WriteFile("/etc/updatectl/conf.d/50-haste.toml", text, 0o644); err != nil {
		s.Fatal(err)
	}
}

// haste is what most roots of these tests have to become good in.
const haste = "[health]\ndeadline = \"12s\"\n[switch]\nshutdown-deadline = \"20s\"\n"

// tries brings the host into a new root, NAME of version 1, that confirm judges for two minutes: NAME.service never has started.
// The rest of the test's roots are in haste again.
func (s *site) tries(name string) (root string) {
	s.Helper()
	s.hastens("[health]\ndeadline = \"2m\"\n")
	s.Cleanup(func() { s.hastens(haste) })
	image, root := s.variant(name, "1", hangs(name+".service", false)...)
	s.sends("1", "apply", "--from", image)
	s.awaitsConfirm()
	return root
}

// hangs is a unit that never has started; with after it is one that multi-user.target does not wait for.
func hangs(name string, waitedFor bool) []layerEntry {
	text := "[Unit]\nDescription=Never done\n"
	if !waitedFor {
		text += "DefaultDependencies=no\n" // or the target that wants it would be ordered after it
	}
	text += "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n"
	dir := "usr/lib/systemd/system/"
	return []layerEntry{aFile(dir+name, text), aLink(dir+"multi-user.target.wants/"+name, "../"+name)}
}

// comesBack applies an image and expects the host in the root that it left, up and settled, two soft reboots later.
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
	for {
		now, err := s.host.Stamp(s.Context())
		if err == nil && now.BootID == before.BootID && now.SoftReboots >= before.SoftReboots+2 {
			break
		}
		if time.Since(start) > within {
			s.Fatalf("the host has not come back after %v: %+v (%v), %s\n%s", within, now, err,
				s.host.Run(s.Context(), "cat", "/var/lib/updatectl/state.json"), s.host.Console())
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.Logf("back after %v", time.Since(start).Round(time.Second))
	s.upAgain()
	v := s.settled()
	if v.Booted.Root != was {
		s.Fatalf("%s is booted, want %s again", v.Booted.Root, was)
	}
	if v.Last == nil || v.Last.Outcome != "unhealthy" || v.Last.Back != was {
		s.Fatalf("the last switch is told as %+v, want unhealthy and back to %s\n%s", v.Last, was,
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

// upAgain waits until all units are started.
func (s *site) upAgain() {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		state := strings.TrimSpace(s.host.Run(s.Context(), "systemctl", "is-system-running").Stdout)
		if state == "running" || state == "degraded" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("the host does not come up: %s", state)
		}
	}
}

// unguarded expects that the guard has gone, soon.
func (s *site) unguarded() {
	s.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		state := strings.TrimSpace(s.host.Run(s.Context(), "systemctl", "is-active", guardUnit).Stdout)
		if state == "inactive" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("the guard is %s still", state)
		}
	}
}

// blames expects the reason for going back to be told everywhere.
func (s *site) blames(v status, reason string) {
	s.Helper()
	if !strings.Contains(v.Last.Reason, reason) {
		s.Errorf("the reason is %q, want %q in it", v.Last.Reason, reason)
	}
	s.refused(exitUnhealthy, v.Last.Target+": "+v.Last.Reason, "apply --retry", "confirm")
	s.refused(exitUnhealthy, "the host went back to "+v.Last.Back, "", "confirm") // until the next switch
	for _, command := range []string{"status", "history"} {
		if text := s.updatectl(exitDone, command).Stdout; !strings.Contains(text, reason) {
			s.Errorf("%s does not say %q:\n%s", command, reason, text)
		}
	}
}

// toldAsWayBack expects the history to end with a root that was not healthy and the switch back, whoever made it.
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
		story[1].Event != "unhealthy" || story[1].Root != v.Last.Target || story[1].Version == "" || story[1].Reason != v.Last.Reason ||
		story[2].Event != "switching" || story[2].Root != v.Last.Back || story[2].Verb != "back" || (story[2].Version == "") != (v.Last.Back == "host") {
		s.Errorf("the history ends with %+v", story)
	}
	for i := range story[1:] {
		if story[i+1].At.Before(story[i].At) {
			s.Errorf("the history goes back in time: %+v", story)
		}
	}
}

// TestWayBack: a root that does not become good is left by itself, whatever is wrong with it.
func TestWayBack(t *testing.T) {
	s := newSite(t, "back")
	s.hastens(haste)
	s.publish("2", "os/server:stable")
	one := s.roots["2"]
	const limit = 2 * time.Minute

	t.Run("not healthy", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("late", "1", hangs("late.service", false)...)
		v := s.comesBack(limit, "apply", "--from", image)
		s.blames(v, "late.service")
		s.toldAsWayBack(v)
		if v.Last.Target != root {
			t.Errorf("%s is blamed, want %s", v.Last.Target, root)
		}
		if r := s.updatectl(exitDone, "apply", "--unattended", "--from", image); !strings.Contains(r.Stdout, "late.service") {
			t.Errorf("an unattended apply says %q", r.Stdout)
		}
		s.refused(exitBlocked, "late.service", "--retry", "apply", "--from", image)
		s.refused(exitBlocked, "late.service", "--retry", "rollback", root)
		t.Log("a newer image is taken")
		s.switches("apply", "--unattended")
		s.runs(one, "2")
		s.unguarded()
		s.updatectl(exitDone, "confirm")
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
	dead("broken agent", "it was not good within 12s", broken...)
	dead("emergency shell", "it was not good within 12s", aFile("usr/lib/systemd/system/lab-mount.service",
		"[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\nOnFailure=emergency.target\nOnFailureJobMode=replace-irreversibly\n[Service]\nType=oneshot\nExecStart=/bin/false\n"),
		aLink("usr/lib/systemd/system/local-fs.target.requires/lab-mount.service", "../lab-mount.service"))
	dead("read-only state", "read-only file system", early("lab-var.service", "mount --bind /var /var; mount -o remount,ro,bind /var")...)
	const foreign = "mkdir -p /run/nextroot; mount -t tmpfs somebody /run/nextroot"
	dead("not healthy, and somebody armed something", "late.service", append(early("foreign.service", foreign), hangs("late.service", false)...)...)

	t.Run("rolled back while it is judged", func(t *testing.T) {
		s := s.in(t)
		root := s.tries("judged")
		v := s.status()
		if v.Phase != "trying" || v.Switch == nil || v.Switch.Target != root || v.Switch.Back != one || time.Until(v.Switch.Deadline) > 2*time.Minute || time.Until(v.Switch.Deadline) < time.Minute {
			t.Errorf("status is %+v, the switch %+v", v, v.Switch)
		}
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "if it is not good by ") || !strings.Contains(text, "still starting: judged.service\n") || !strings.Contains(text, ", the host rolls back to "+one[:19]) {
			t.Errorf("status does not say where the host goes:\n%s", text)
		}
		s.refused(exitBlocked, "another updatectl is at work (confirm", "", "apply")
		t.Log("a roll-back that is refused leaves the root to confirm")
		s.refused(exitError, "no such root", "", "rollback", "sha256-0000")
		s.awaitsConfirm()
		s.refused(exitBlocked, "the only way is back to "+one, "", "rollback", "host")
		s.awaitsConfirm()
		s.inhibit() // as of the automatic way back, nobody is asked
		s.switches("rollback")
		s.runs(one, "2")
		const reason = "rolled back from by the operator"
		if v = s.status(); v.Bad[root].Reason != reason || v.Last == nil || v.Last.Outcome != "rolled back" || v.Last.Target != root || v.Last.Reason != reason || v.Last.Back != one {
			t.Errorf("bad are %+v, the last switch is %+v", v.Bad, v.Last)
		}
		if text := s.updatectl(exitDone, "history").Stdout; !strings.Contains(text, "rolled back  ") {
			t.Errorf("the history does not tell of it:\n%s", text)
		}
		s.unguarded()
	})

	t.Run("rolled back where nobody watches any more", func(t *testing.T) {
		s := s.in(t)
		root := s.tries("unwatched")
		s.host.Must(t, "systemctl", "stop", guardUnit)
		release := s.inhibit()
		s.refused(exitBlocked, "the backup runs", "", "rollback")
		release()
		s.awaitsConfirm()
		s.switches("rollback")
		s.runs(one, "2")
		if v := s.status(); v.Bad[root].Reason != "rolled back from by the operator" {
			t.Errorf("bad are %+v", v.Bad)
		}
		s.unguarded()
	})
	t.Run("confirm is killed while it judges", func(t *testing.T) {
		s := s.in(t)
		root := s.tries("killed")
		const pid = "systemctl show --property MainPID --value updatectl-confirm.service"
		was := s.host.Must(t, "sh", "-c", pid)
		s.host.Must(t, "systemctl", "kill", "--signal=KILL", "updatectl-confirm.service")
		for deadline := time.Now().Add(s.host.Patience()); ; time.Sleep(200 * time.Millisecond) {
			if now := s.host.Must(t, "sh", "-c", pid); now != was && now != "0" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("systemd does not start confirm again")
			}
		}
		s.host.Must(t, "sh", "-ec", "systemctl stop killed.service; systemctl reset-failed killed.service")
		s.runs(root, "1")
		s.unguarded()
		s.switches("rollback")
		s.runs(one, "2")
	})

	// As when a shutdown is cancelled while PID 1 is already on its way.
	takenBack := []string{"", `/bin/sed -i 's/"phase": "armed"/"phase": "staged"/' /var/lib/updatectl/state.json`}
	t.Run("taken back, and it comes all the same", func(t *testing.T) {
		s := s.in(t)
		image, root := s.variant("too-late", "1")
		s.armsBy(takenBack...)
		s.switches("apply", "--from", image)
		s.armsAgain()
		for deadline := time.Now().Add(time.Minute); s.status().Phase == "staged" && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		}
		s.runs(root, "1")
		s.unguarded()
		s.switches("rollback")
		s.runs(one, "2")
	})
	t.Run("taken back, and it comes all the same and hangs", func(t *testing.T) {
		s := s.in(t)
		image, _ := s.variant("too-late-hangs", "1", hangs("endless.service", true)...)
		s.armsBy(takenBack...)
		s.blames(s.comesBack(limit, "apply", "--from", image), "endless.service")
		s.armsAgain()
	})
	t.Run("healthy, and somebody armed something", func(t *testing.T) {
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

// awaitsConfirm waits until the unit that confirms is at work.
func (s *site) awaitsConfirm() {
	s.Helper()
	for deadline := time.Now().Add(s.host.Patience()); !s.confirms(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatal("the unit that confirms is not at work")
		}
	}
}

// sends applies an image and waits until the host is in the new root, however far that comes.
func (s *site) sends(version string, args ...string) {
	s.Helper()
	if r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...); r.Code != 0 && r.Code < 128 {
		s.Fatalf("updatectl %s: %s", strings.Join(args, " "), r)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if r := s.host.Run(s.Context(), "cat", "/run/lab-identity", "/usr/share/lab/version"); r.Stdout == version+"\n"+version+"\n" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatal("the new root does not come up")
		}
	}
}

// TestWayBackWithoutHelp: the guard goes back where nothing can be written, and where PID 1 itself is dead.
func TestWayBackWithoutHelp(t *testing.T) {
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
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(300 * time.Millisecond) {
			if r := h.Run(t.Context(), "cat", "/run/lab-identity", "/usr/share/lab/version"); r.Stdout == "1\n1\n" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the host does not come back\n%s", h.Console())
			}
		}
		s.upAgain()
		s.unguarded()
		t.Log("what the guard did is in the record once there is room")
		h.Must(t, "sh", "-ec", "rm -f /var/fill /var/fill2 /var/lib/updatectl/more; systemctl reset-failed; systemctl restart updatectl-confirm")
		v := s.settled()
		if v.Booted.Root != one || v.Phase == "trying" || v.Last == nil || v.Last.Outcome != "unhealthy" || v.Last.Target != root || v.Last.Back != one {
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
		if err := h.Deafen(); err != nil { // with every service running
			t.Fatal(err)
		}
		if _, err := h.AwaitReboot(t.Context(), 5*time.Minute); err != nil {
			t.Fatalf("%v\n%s", err, h.Console())
		}
		v := s.settles()
		s.runs(one, "1")
		if bad := v.Bad[root]; !strings.Contains(bad.Reason, "systemd has not answered for 2m0s") {
			t.Errorf("bad are %+v", v.Bad)
		}
		s.blames(v, "systemd has not answered")
	})
}
