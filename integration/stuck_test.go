//go:build lab

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// stubborn is a service that does not stop, and that systemd waits for as long as it takes.
const stubborn = "[Service]\nTimeoutStopSec=infinity\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n"

// TestStuckShutdown: a service that does not stop holds a switch up for as long as the configuration says, and not for the
// half hour that systemd would wait.
func TestStuckShutdown(t *testing.T) {
	s := newSite(t, "stuck")
	h := s.host
	s.hastens("[switch]\nshutdown-deadline = \"8s\"\n")
	if err := h.WriteFile("/etc/systemd/system/stubborn.service", stubborn, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "sh", "-ec", "systemctl daemon-reload; systemctl start stubborn; systemd-run --unit=by-hand sleep infinity; mkdir -p /srv/extra; mount -t tmpfs lab /srv/extra")
	one := s.roots["1"]

	t.Run("plan names it", func(t *testing.T) {
		s := s.in(t)
		s.updatectl(exitAvailable, "stage")
		plan := s.updatectl(exitAvailable, "plan").Stdout
		if !strings.Contains(plan, "stubborn.service") || !strings.Contains(plan, "has no stop timeout") {
			t.Errorf("plan does not name what may hold the shutdown up:\n%s", plan)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s := s.in(t)
		before, err := h.Stamp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r := h.Run(t.Context(), "updatectl", "apply"); r.Code != 0 && r.Code < 128 {
			t.Fatal(r)
		}
		var v status
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(300 * time.Millisecond) {
			if v = s.status(); v.Phase != "armed" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the shutdown is not cancelled: %+v\n%s", v, h.Console())
			}
		}
		s.unguarded() // the record comes first
		s.upAgain()
		if after, err := h.Stamp(t.Context()); err != nil || after != before {
			t.Fatalf("the host has booted: %+v after %+v (%v)", after, before, err)
		}
		if v.Booted.Root != "host" || v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one || len(v.Bad) != 0 {
			t.Errorf("the image is not to blame, and still staged; status is %+v", v)
		}
		if v.Last == nil || v.Last.Outcome != "stuck" || !strings.Contains(v.Last.Reason, "still stopping: stubborn.service") {
			t.Errorf("the last switch is told as %+v", v.Last)
		}
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "Not reached") || !strings.Contains(text, "once: the shutdown was not done") {
			t.Errorf("status does not count it:\n%s", text)
		}
		s.unarmed()
		for _, unit := range []string{"nginx", "ssh", "redis-server", "systemd-logind", "dbus", "systemd-networkd", "srv-extra.mount", "timers.target", "multi-user.target"} {
			if r := h.Run(t.Context(), "systemctl", "is-active", unit); r.Code != 0 {
				t.Errorf("%s is %s", unit, strings.TrimSpace(r.Stdout))
			}
		}
		if r := h.Run(t.Context(), "systemctl", "list-jobs", "--no-legend"); strings.TrimSpace(r.Stdout) != "" {
			t.Errorf("jobs are left: %s", r.Stdout)
		}
		if failed, err := h.FailedUnits(t.Context()); err != nil || len(failed) != 0 {
			t.Errorf("failed units: %v (%v)", failed, err)
		}
	})
	t.Run("escalated", func(t *testing.T) {
		s := s.in(t)
		s.hastens("[switch]\nshutdown-deadline = \"8s\"\nstuck = \"escalate\"\n")
		h.Must(t, "sh", "-ec", "systemctl kill --signal=KILL stubborn; sleep 1; systemctl start stubborn")
		s.switches("apply")
		s.runs(one, "1")
		s.unguarded()
	})
	t.Run("somebody asked logind for a moment", func(t *testing.T) {
		s := s.in(t)
		const moment = 20 * time.Second // longer than the deadline, which is the shutdown's
		if err := h.WriteFile("/etc/systemd/logind.conf.d/50-lab.conf", fmt.Sprintf("[Login]\nInhibitDelayMaxSec=%v\n", moment), 0o644); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "sh", "-ec", "systemctl restart systemd-logind; systemd-run --unit=asks systemd-inhibit --what=shutdown --mode=delay sleep infinity; sleep 1; systemd-inhibit --list | grep -q delay")
		start := time.Now()
		s.switches("rollback")
		if took := time.Since(start); took < moment {
			t.Errorf("nobody waited: the host was back after %v", took)
		}
		s.runs("host", "host")
		if v := s.status(); v.Last == nil || v.Last.Outcome != "switched" {
			t.Errorf("the last switch is told as %+v", v.Last)
		}
		s.unguarded()
	})
}
