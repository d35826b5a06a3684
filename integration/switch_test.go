//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

const armUnit, confirmUnit = "updatectl-arm.service", "updatectl-confirm.service"

// armsBy changes what the arming unit does when it is stopped, until [site.armsAgain]; the command "" is what it
// normally does. The change is in /run and survives soft reboots.
func (s *site) armsBy(commands ...string) {
	s.Helper()
	dropIn := "[Service]\nExecStop=\n"
	for _, c := range commands {
		if c == "" {
			c = "/usr/bin/updatectl agent arm"
		}
		dropIn += "ExecStop=" + c + "\n"
	}
	if err := s.host.WriteFile("/run/systemd/system/"+armUnit+".d/lab.conf", dropIn, 0o644); err != nil {
		s.Fatal(err)
	}
	s.host.Must(s.T, "systemctl", "daemon-reload")
}

func (s *site) armsAgain() {
	s.Helper()
	s.host.Must(s.T, "sh", "-ec",
		"rm -r /run/systemd/system/"+armUnit+".d; systemctl daemon-reload; systemctl reset-failed")
}

// fails runs a command of the agent after which the host must soft-reboot into the same root and report why. It
// returns the status.
func (s *site) fails(outcome, reason string, args ...string) status {
	s.Helper()
	from, mounts := s.status().Booted.Root, s.mounts()
	before, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	after := s.switches(args...)
	if after.SoftReboots != before.SoftReboots+1 {
		s.Errorf("the host soft-rebooted %d times, want once", after.SoftReboots-before.SoftReboots)
	}
	s.upAgain() // the confirming unit ends after the record is written
	v := s.settled()
	if v.Booted.Root != from {
		s.Fatalf("%s is booted, want %s again", v.Booted.Root, from)
	}
	if v.Last == nil || v.Last.Outcome != outcome || !strings.Contains(v.Last.Reason, reason) {
		s.Errorf("the last switch is %+v, want %q with %q", v.Last, outcome, reason)
	}
	for _, command := range []string{"status", "history"} {
		if text := s.updatectl(exitDone, command).Stdout; !mentions(text, v.Last.Reason) {
			s.Errorf("%s does not say %q:\n%s", command, v.Last.Reason, text)
		}
	}
	failed, err := s.host.FailedUnits(s.Context())
	failed = slices.DeleteFunc(failed, func(unit string) bool { return unit == armUnit }) // which may have failed, too
	if err != nil || !slices.Equal(failed, []string{confirmUnit}) {
		s.Errorf("failed units are %v (%v), want the confirming one, which reports a failed switch", failed, err)
	}
	if after := s.mounts(); after != mounts {
		s.Errorf("mounts before:\n%s\nand after the failed switch:\n%s", mounts, after)
	}
	s.unarmed()
	return v
}

// mounts lists the mounts of the host, without those that systemd makes when it starts.
func (s *site) mounts() string {
	s.Helper()
	return s.host.Must(s.T, "sh", "-ec",
		`findmnt --raw --noheadings --output TARGET,SOURCE,FSROOT | grep -Ev '^/(dev|proc|sys|run|tmp)[/ ]' | sort`)
}

// lands expects the host to be, or to come up soon, in one of two roots, and returns it to the first. It reports
// whether the host was in the second.
func (s *site) lands(from, to string) bool {
	s.Helper()
	const underWay = time.Second // until a requested soft reboot has started
	time.Sleep(underWay)
	var v status
	var state string
	var r lab.Result
	up := func() bool {
		state = s.systemState()
		r = s.host.Run(s.Context(), "updatectl", "--output", "json", "status")
		v = status{}
		return r.Code == 0 && isUp(state) && json.Unmarshal([]byte(r.Stdout), &v) == nil && v.Phase != "trying" &&
			s.host.Sh(s.Context(), "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 "+
				"org.freedesktop.login1.Manager PreparingForShutdown | grep -q false").Code == 0
	}
	inARow := 0 // a look between two steps of a shutdown sees nothing of it
	if !s.host.Await(s.T, s.host.Patience(), func() bool {
		if inARow++; !up() {
			inARow = 0
		}
		return inARow == 2
	}) {
		s.Fatalf("the host does not come up: %s, %s", state, r)
	}
	// The next command undoes a switch that was prepared and never requested.
	s.updatectl(exitDone, "gc")
	v = s.status()
	s.unarmed()
	s.host.Must(s.T, "systemctl", "reset-failed")
	switch {
	case v.Booted.Root == to && v.Phase == "good":
		s.runs(to, "1")
		s.switches("rollback", from)
		s.runs(from, from)
		s.updatectl(exitAvailable, "stage")
		return true
	case v.Booted.Root == from && v.Phase == "staged" && v.Staged != nil && v.Staged.Root == to:
		return false
	}
	s.Fatalf("want %s good, or %s with the other staged, status is %+v", to, from, v)
	return false
}

// unarmed expects that the next reboot is an ordinary one.
func (s *site) unarmed() {
	s.Helper()
	if armed := s.status().Armed; armed != "" {
		s.Errorf("%s is left armed", armed)
	}
	if r := s.host.Run(s.Context(), "mountpoint", "--quiet", "/run/nextroot"); r.Code == 0 {
		s.Error("something is mounted at /run/nextroot")
	}
	if r := s.host.Run(s.Context(), "systemctl", "is-active", armUnit); r.Code == 0 {
		s.Errorf("%s waits for a shutdown", armUnit)
	}
}

// inhibit starts a service that holds a lock against shutdown, and returns a function that stops it.
func (s *site) inhibit() (release func()) {
	s.Helper()
	s.host.Must(s.T, "systemd-run", "--quiet", "--unit=backup", "systemd-inhibit", "--what=shutdown", "--mode=block",
		"--who=backup", "--why=the backup runs", "sleep", "infinity")
	if !s.host.Await(s.T, s.host.Patience(), func() bool {
		return strings.Contains(s.host.Must(s.T, "systemd-inhibit", "--list", "--no-pager"), "the backup runs")
	}) {
		s.Fatal("no lock is held")
	}
	return func() { s.host.Must(s.T, "systemctl", "stop", "backup") }
}

// pretendKilled puts the host into the state in which apply is killed after it wrote the record and before it
// requested the soft reboot.
func (s *site) pretendKilled(target string) {
	s.Helper()
	v := s.status()
	var record map[string]any
	if err := json.Unmarshal([]byte(s.host.Must(s.T, "cat", "/var/lib/updatectl/state.json")), &record); err != nil {
		s.Fatal(err)
	}
	record["phase"] = "armed"
	record["switch"] = map[string]any{
		"from": v.Booted.Root, "target": target, "boot_id": v.Kernel.BootID, "soft_reboots": v.Kernel.SoftReboots,
		"verb": "apply", "at": time.Now().UTC(),
	}
	text, err := json.Marshal(record)
	if err != nil {
		s.Fatal(err)
	}
	if err := s.host.WriteFile("/var/lib/updatectl/state.json", string(text), 0o600); err != nil {
		s.Fatal(err)
	}
	s.host.Must(s.T, "systemctl", "start", armUnit)
}

// reboots makes a full reboot, as an administrator does, and expects no soft one instead.
func (s *site) reboots() {
	s.Helper()
	s.host.Cmdline = []string{"updatectl.resume=0"} // otherwise it resumes by a soft reboot
	defer func() { s.host.Cmdline = nil }()
	after, err := s.host.FullReboot(s.Context(), "systemctl", "reboot")
	if err != nil {
		s.Fatal(err)
	}
	if after.SoftReboots != 0 {
		s.Fatalf("that was a soft reboot: %+v", after)
	}
}

// TestSwitchThatFails shows what can fail between an accepted apply and the new root. systemd falls back without an
// error, so the agent has to report what happened, and the host has to work and to be able to try again.
func TestSwitchThatFails(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "switch")
	s.settlesAtOnce()
	h := s.host
	s.updatectl(exitAvailable, "stage")
	one := s.roots["1"]
	store := "/var/lib/updatectl/roots/" + one

	t.Run("arming fails", func(t *testing.T) {
		s := s.in(t)
		s.armsBy("/bin/false")
		v := s.fails("not armed", "the arming unit did not run to its end", "apply")
		if v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one || len(v.Bad) != 0 {
			t.Errorf("the image must still be staged and not bad; status is %+v", v)
		}
		s.armsAgain()
	})
	t.Run("the image is gone when services have stopped", func(t *testing.T) {
		s := s.in(t)
		s.armsBy("/bin/mv "+store+"/root.cfs "+store+"/gone", "")
		v := s.fails("not armed", "could not be armed: ", "apply")
		if v.Phase != "staged" || len(v.Bad) != 0 {
			t.Errorf("status is %+v", v)
		}
		t.Logf("reason: %s", v.Last.Reason)
		h.Must(t, "mv", store+"/gone", store+"/root.cfs")
		s.armsAgain()
	})
	t.Run("the guard has ended", func(t *testing.T) {
		s := s.in(t)
		s.armsBy("/bin/sh -c 'systemctl kill "+guardUnit+"; timeout 60 sh -c \"while systemctl is-active -q "+
			guardUnit+"; do sleep 0.1; done\"'", "")
		v := s.fails("not armed", guardUnit+" is not running", "apply")
		if v.Phase != "staged" || len(v.Bad) != 0 {
			t.Errorf("status is %+v", v)
		}
		s.armsAgain()
	})
	t.Run("an inhibitor lock", func(t *testing.T) {
		s := s.in(t)
		release := s.inhibit()
		before, _ := h.Stamp(t.Context())
		s.refused(exitBlocked, "backup (process", "systemd-inhibit --list", "apply")
		for range 8 { // more often than systemd starts a unit by default, as a script might
			s.refused(exitBlocked, "the backup runs", "try again when", "apply")
		}
		if after, _ := h.Stamp(t.Context()); after != before {
			t.Errorf("the host has rebooted: %+v after %+v", after, before)
		}
		if v := s.status(); v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one {
			t.Errorf("status is %+v", v)
		}
		s.unarmed()
		release()
	})
	t.Run("killed before it requested the reboot", func(t *testing.T) {
		s := s.in(t)
		s.pretendKilled(one)
		s.updatectl(exitDone, "gc")
		if v := s.status(); v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one {
			t.Errorf("status is %+v", v)
		}
		s.unarmed()
	})
	t.Run("killed before it requested the reboot, and no other command runs", func(t *testing.T) {
		s := s.in(t)
		s.hastens("[health]\ndeadline = \"3s\"\nsettle = \"1s\"\n[livepatch]\ndeadline = \"1s\"\n[switch]\n" +
			"shutdown-deadline = \"1s\"\n")
		s.pretendKilled(one)
		start := time.Now()
		h.Must(t, "sh", "-ec", "systemctl restart "+guardUnit+"; rm /etc/updatectl/conf.d/50-haste.toml")
		if !h.Await(t, h.Patience(), func() bool { return s.status().Phase == "staged" }) {
			t.Fatalf("the switch is not undone: %+v", s.status())
		}
		if after := time.Since(start); after < 15*time.Second { // the deadlines together, and a margin
			t.Errorf("the switch is undone too early, after %v", after)
		}
		s.unguarded()
		s.unarmed()
	})
	t.Run("killed at any moment of a switch", func(t *testing.T) {
		s := s.in(t)
		release := s.inhibit()
		start := time.Now()
		s.refused(exitBlocked, "the backup runs", "", "apply")
		whole := time.Since(start)
		release()
		arrived, stayed := 0, 0
		const moments = 5
		for i := range moments {
			after := whole * time.Duration(i+1) / moments
			h.Run(t.Context(), "timeout", "--signal=KILL", fmt.Sprintf("%.3f", after.Seconds()), "updatectl", "apply",
				"--retry")
			if s.lands("host", one) {
				arrived++
			} else {
				stayed++
			}
		}
		// The same with the arming step, when services have stopped: at its start, in the middle, and never.
		for _, after := range []string{"0.02", "0.1", "0.3", "30"} {
			s.armsBy("/usr/bin/timeout --signal=KILL " + after + " /usr/bin/updatectl agent arm")
			s.switches("apply", "--retry")
			if s.lands("host", one) {
				arrived++
			} else {
				stayed++
			}
			s.armsAgain()
		}
		t.Logf("%d times in the new root, %d times in the old one", arrived, stayed)
		if arrived == 0 || stayed == 0 {
			t.Error("the moments were badly chosen: this shows nothing")
		}
	})
	t.Run("no logind", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "sh", "-ec",
			"systemctl mask --runtime --now systemd-logind.service dbus-org.freedesktop.login1.service")
		s.switches("apply", "--retry")
		s.runs(one, "1")
		h.Must(t, "sh", "-ec",
			"systemctl unmask --runtime systemd-logind.service dbus-org.freedesktop.login1.service; "+
				"systemctl start systemd-logind")
	})
	s.publish("2", "os/server:stable")
	two := s.roots["2"]
	t.Run("systemd does not accept the new root", func(t *testing.T) {
		s := s.in(t)
		s.armsBy("/bin/false")
		s.fails("not armed", "the arming unit did not run to its end", "apply")
		s.armsBy("", "/bin/umount -l /run/nextroot")
		v := s.fails("fell back", "it did not accept the new root", "apply")
		if bad, ok := v.Bad[two]; !ok || !strings.HasPrefix(v.Last.Reason, bad.Reason) {
			t.Errorf("%s is not bad: %+v", two, v)
		}
		s.armsAgain()
		if why := s.skipped(); !strings.Contains(why, v.Bad[two].Reason) {
			t.Errorf("an unattended apply skips the image because %q", why)
		}
		s.refusedAsBad(two, "apply")
		s.switches("apply", "--retry")
		s.runs(two, "2")
		if v := s.status(); len(v.Bad) != 0 {
			t.Errorf("a root that became good is still bad: %+v", v.Bad)
		}
	})
	t.Run("an administrator's full reboot stays one", func(t *testing.T) {
		s := s.in(t)
		ref := s.registry.Host + "/os/server@" + strings.Replace(one, "-", ":", 1)
		s.updatectl(exitAvailable, "stage", "--from", ref)
		release := s.inhibit()
		s.refused(exitBlocked, "the backup runs", "", "apply", "--from", ref)
		release()
		s.unarmed()
		s.reboots()
		v := s.settled()
		if v.Booted.Root != "host" || v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one ||
			v.Kernel.SoftReboots != 0 {
			t.Errorf("status is %+v", v)
		}
		s.unarmed()
		if got := h.Must(t, "cat", "/usr/share/lab/version", "/run/lab-identity"); got != "host\nhost" {
			t.Errorf("booted is %q", got)
		}
		if failed, err := h.FailedUnits(t.Context()); err != nil || len(failed) != 0 {
			t.Errorf("failed units: %v (%v)", failed, err)
		}
		s.switches("apply")
		s.runs(two, "2")
	})
	t.Run("a full reboot after apply was killed", func(t *testing.T) {
		s := s.in(t)
		s.updatectl(exitAvailable, "stage", "--from", s.registry.Host+"/os/server@"+strings.Replace(one, "-", ":", 1))
		s.pretendKilled(one)
		s.reboots()
		v := s.settled()
		if v.Booted.Root != "host" || v.Phase != "staged" || v.Last == nil || v.Last.Outcome != "rebooted" {
			t.Errorf("status is %+v, last %+v", v, v.Last)
		}
		s.unarmed()
	})
}
