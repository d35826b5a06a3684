//go:build lab && faults

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fault"
)

// TestFaultsOfTheMachine lets the machine around the agent fail, really where a container can: a read-only file
// system, a full one, no memory, no bus, a network that dies. Faults after services have stopped are injected into the
// arming step of a real switch.
func TestFaultsOfTheMachine(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "machine")
	h := s.host
	s.injects()
	s.settlesAtOnce()
	one := s.roots["1"]
	wire := lab.NewWire(t, s.registry)
	plain := fmt.Sprintf("[source]\nplain-http = [%q, %q]\n", s.registry.Host, wire.Host)
	if err := h.WriteFile("/etc/updatectl/conf.d/10-lab.toml", plain, 0o644); err != nil {
		t.Fatal(err)
	}
	must := func(script string) { t.Helper(); h.Must(t, "sh", "-ec", script) }
	fill := func() {
		h.Sh(t.Context(), "avail=$(df --output=avail -k /var | tail -1); fallocate -l $((avail - 2000))K /var/ballast")
		h.Sh(t.Context(), "dd if=/dev/zero of=/var/crumbs bs=4k 2>/dev/null")
	}
	cutOnce := func() func(io.Reader) io.Reader {
		var cut atomic.Bool
		return func(r io.Reader) io.Reader {
			if cut.Swap(true) {
				return r
			}
			return lab.Cut(1 << 20)(r)
		}
	}

	t.Run("the network dies for a moment", func(t *testing.T) {
		s := s.in(t)
		wire.Damage(lab.Blobs, cutOnce())
		s.updatectl(exitAvailable, "stage", "--from", wire.Host+"/os/server:stable")
		wire.Repair()
		s.sound()
	})
	t.Run("the network dies permanently", func(t *testing.T) {
		s := s.in(t)
		must("rm -rf /var/lib/updatectl")
		wire.Damage(lab.Blobs, lab.Cut(10_000)) // of each connection: no progress
		s.refused(exitUnreachable, "stopped after", "try again", "stage", "--from", wire.Host+"/os/server:stable")
		s.nothingVisible()
		wire.Repair()
		s.updatectl(exitAvailable, "stage", "--from", wire.Host+"/os/server:stable")
		s.sound()
	})
	t.Run("out of memory", func(t *testing.T) {
		s := s.in(t)
		must("rm -rf /var/lib/updatectl")
		died := 0
		for _, limit := range []string{"32", "40", "48", "56"} { // MB, of which staging needs more
			r := h.Run(t.Context(), "prlimit", "--data="+limit+"000000", "updatectl", "stage")
			if r.Code == exitAvailable {
				continue
			}
			died++
			t.Logf("with %s MB: exit code %d", limit, r.Code)
			s.nothingVisible()
			s.sound()
		}
		if died == 0 {
			t.Error("memory always sufficed: this shows nothing")
		}
		s.updatectl(exitAvailable, "stage")
		s.sound()
	})
	t.Run("a read-only file system", func(t *testing.T) {
		s := s.in(t)
		must("cd /; mount --bind /var/lib/updatectl /var/lib/updatectl; mount -o remount,bind,ro /var/lib/updatectl")
		s.refused(exitError, "read-only file system", "mounted read-only", "apply")
		s.refused(exitError, "read-only file system", "mounted read-only", "stage", "--from",
			s.registry.Host+"/"+s.offer("small", smallTree(t), s.publisher.Key))
		if v := s.status(); v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one || v.Armed != "" {
			t.Errorf("status is %v", v)
		}
		s.updatectl(exitAvailable, "plan")
		must("umount /var/lib/updatectl")
		s.sound()
	})
	t.Run("a full disk, and then a switch", func(t *testing.T) {
		s := s.in(t)
		fill()
		s.refused(exitNoSpace, "no space left on device", "updatectl gc", "apply")
		if v := s.status(); v.Phase != "staged" || v.Armed != "" {
			t.Errorf("status is %v", v)
		}
		must("rm /var/ballast /var/crumbs")
		s.sound()
	})
	t.Run("when services have stopped", func(t *testing.T) {
		s := s.in(t)
		for _, c := range []struct {
			spec   fault.Spec
			reason string
		}{
			{fault.Spec{Step: "write /var/lib/updatectl/roots/sha256-*/etc.prepared.new/…", Nth: 1, Do: "ENOSPC",
				Stays: true}, "no space left on device"},
			{fault.Spec{Step: "syncfs /var/lib/updatectl/roots/sha256-*/etc.prepared.new", Nth: 1, Do: "EIO"},
				"input/output error"},
			{fault.Spec{Step: "move_mount /run/nextroot", Nth: 1, Do: "ENOMEM"}, "cannot allocate memory"},
			{fault.Spec{Step: "move_mount /run/nextroot", Nth: 1, Do: "KILL"}, "did not run to its end"},
		} {
			s.faults(c.spec)
			// What changes last of all, of what the first image takes over, makes the /etc that was merged before out of date.
			s.armsBy("/usr/bin/touch /etc/hostname", injector+" "+faultSpec+" /usr/bin/updatectl agent arm")
			v := s.fails("not armed", c.reason, "apply")
			t.Logf("%s at %s: %s", c.spec.Do, c.spec.Step, v.Last.Reason)
			s.armsAgain()
			if v := s.sound(); v.Phase != "staged" || v.Booted.Root != "host" || len(v.Bad) != 0 {
				t.Errorf("status is %v, bad %v", v, v.Bad)
			}
		}
	})
	t.Run("the stamp cannot be written", func(t *testing.T) {
		s := s.in(t) // the root is armed by then; what is mounted at / shows the rest
		s.faults(fault.Spec{Step: "create /run/updatectl/.armed.json.*", Nth: 1, Do: "ENOSPC", Stays: true})
		s.armsBy(injector + " " + faultSpec + " /usr/bin/updatectl agent arm")
		s.switches("apply")
		s.runs(one, "1")
		s.armsAgain()
		s.switches("rollback")
		s.updatectl(exitAvailable, "stage")
		s.sound()
	})
	t.Run("no bus", func(t *testing.T) {
		s := s.in(t)
		before, err := h.Stamp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		must("systemctl stop dbus.socket dbus.service")
		if v := s.status(); v.Phase != "staged" {
			t.Errorf("status is %v", v)
		}
		if r := h.Run(t.Context(), "updatectl", "apply", "--retry"); r.Code != exitDone && r.Code < 128 {
			t.Fatalf("apply: %s", r)
		}
		if _, err := h.AwaitBoot(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		s.runs(one, "1")
		s.sound()
	})
	t.Run("confirm is killed", func(t *testing.T) {
		s := s.in(t)
		s.faults(fault.Spec{Step: "rename " + stateFile, Nth: 2, Do: "KILL"})
		if err := h.WriteFile("/run/systemd/system/"+confirmUnit+".d/lab.conf",
			"[Service]\nExecStart=\nExecStart="+injector+" "+faultSpec+" /usr/bin/updatectl confirm\n",
			0o644); err != nil {
			t.Fatal(err)
		}
		s.publish("2", "os/server:stable")
		s.switches("apply")
		var v status
		if err := json.Unmarshal([]byte(s.updatectl(exitDone, "--output", "json", "status").Stdout), &v); err != nil {
			t.Fatal(err)
		}
		if v.Phase != "trying" || v.Booted.Root != s.roots["2"] || v.Good[0].Root != one {
			t.Errorf("killed before the root was good: %v", v)
		}
		must("rm -r /run/systemd/system/" + confirmUnit +
			".d; systemctl daemon-reload; systemctl reset-failed; systemctl start " + confirmUnit)
		s.runs(s.roots["2"], "2")
		s.sound()
	})
}
