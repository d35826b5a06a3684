//go:build lab

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// stubborn is a service that does not stop, and for which systemd waits without a limit.
const stubborn = "[Service]\nTimeoutStopSec=infinity\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; " +
	"done'\n"

// TestStuckShutdown: a service that does not stop delays a switch for as long as the configuration allows, and not for
// the half hour that systemd would wait.
func TestStuckShutdown(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "stuck")
	s.settlesAtOnce()
	h := s.host
	s.hastens("[switch]\nshutdown-deadline = \"8s\"\n")
	if err := h.WriteFile("/etc/systemd/system/stubborn.service", stubborn, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "sh", "-ec", "systemctl daemon-reload; systemctl start stubborn; "+
		"systemd-run --unit=by-hand sleep infinity; mkdir -p /srv/extra; mount -t tmpfs lab /srv/extra")
	one := s.roots["1"]

	t.Run("plan names it", func(t *testing.T) {
		s := s.in(t)
		s.updatectl(exitAvailable, "stage")
		blockers := s.plans(exitAvailable).Blockers
		if !slices.ContainsFunc(blockers, func(b struct{ Unit string }) bool { return b.Unit == "stubborn.service" }) {
			t.Errorf("the plan names as what may delay the shutdown: %+v", blockers)
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
		if !h.Await(t, h.Patience(), func() bool { v = s.status(); return v.Phase != "armed" }) {
			t.Fatalf("the shutdown is not cancelled: %+v\n%s", v, h.Console())
		}
		s.unguarded() // it ends after the record is written
		s.upAgain()
		if after, err := h.Stamp(t.Context()); err != nil || after != before {
			t.Fatalf("the host has rebooted: %+v after %+v (%v)", after, before, err)
		}
		if v.Booted.Root != "host" || v.Phase != "staged" || v.Staged == nil || v.Staged.Root != one ||
			len(v.Bad) != 0 {
			t.Errorf("the image must still be staged and not bad; status is %+v", v)
		}
		if v.Last == nil || v.Last.Outcome != "stuck" ||
			!strings.Contains(v.Last.Reason, "stubborn.service") {
			t.Errorf("the last switch is %+v", v.Last)
		}
		if f := v.NotReached[one]; f.Times != 1 || f.Reason != v.Last.Reason {
			t.Errorf("status counts %+v, want one failed switch", v.NotReached)
		}
		s.unarmed()
		var jobs string // the guard has only queued what starts again
		if !h.Await(t, h.Patience(), func() bool {
			jobs = strings.TrimSpace(h.Run(t.Context(), "systemctl", "list-jobs", "--no-legend").Stdout)
			return jobs == ""
		}) {
			t.Errorf("jobs are left: %s", jobs)
		}
		for _, unit := range []string{"nginx", "ssh", "redis-server", "systemd-logind", "dbus", "systemd-networkd",
			"srv-extra.mount", "timers.target", "multi-user.target"} {
			if r := h.Run(t.Context(), "systemctl", "is-active", unit); r.Code != 0 {
				t.Errorf("%s is %s", unit, strings.TrimSpace(r.Stdout))
			}
		}
		if failed, err := h.FailedUnits(t.Context()); err != nil || len(failed) != 0 {
			t.Errorf("failed units: %v (%v)", failed, err)
		}
	})
	t.Run("escalated", func(t *testing.T) {
		s := s.in(t)
		s.hastens("[switch]\nshutdown-deadline = \"8s\"\nstuck = \"escalate\"\n")
		h.Must(t, "sh", "-ec", "systemctl kill --signal=KILL stubborn; "+
			"for i in $(seq 600); do systemctl is-active -q stubborn || break; sleep 0.1; done; systemctl start stubborn")
		s.switches("apply")
		s.runs(one, "1")
		s.unguarded()
	})
	t.Run("a delay lock of logind", func(t *testing.T) {
		s := s.in(t)
		const moment = 20 * time.Second // longer than the deadline of the shutdown
		if err := h.WriteFile("/etc/systemd/logind.conf.d/50-lab.conf", fmt.Sprintf("[Login]\nInhibitDelayMaxSec=%v\n",
			moment), 0o644); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "sh", "-ec", "systemctl restart systemd-logind; "+
			"systemd-run --unit=asks systemd-inhibit --what=shutdown --mode=delay sleep infinity")
		if !h.Await(t, h.Patience(), func() bool {
			return h.Sh(t.Context(), "systemd-inhibit --list | grep -q delay").Code == 0
		}) {
			t.Fatal("no lock is held")
		}
		start := time.Now()
		s.switches("rollback")
		if took := time.Since(start); took < moment {
			t.Errorf("the lock did not delay the switch: the host was back after %v", took)
		}
		s.runs("host", "host")
		if v := s.status(); v.Last == nil || v.Last.Outcome != "switched" {
			t.Errorf("the last switch is %+v", v.Last)
		}
		s.unguarded()
	})
}
