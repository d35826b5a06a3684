//go:build lab && vm

package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMOutage measures in one machine, in turns, how long a web server is away at an apply, at a rollback, and at full
// reboots of the host, without an image and with one, polled from outside. The firmware of a server takes longer than
// that of this machine, which has none.
func TestVMOutage(t *testing.T) {
	beside(t, lab.QEMU)
	const rounds = 3
	s := newSiteOf(t, lab.Options{Name: "vmoutage", Kind: lab.QEMU})
	plain := s.fullRebootsOf(rounds) // before there is a root to resume
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.publish("2", "os/server:stable")
	var applies, rollbacks []time.Duration
	for range rounds {
		applies = append(applies, s.outageOf("updatectl", "apply", "--retry"))
		rollbacks = append(rollbacks, s.outageOf("updatectl", "rollback"))
	}
	full := s.fullRebootsOf(1) // lands on the host root, and goes on into the last good root
	middle := func(all []time.Duration) time.Duration {
		return slices.Sorted(slices.Values(all))[len(all)/2]
	}
	for name, all := range map[string][]time.Duration{
		"apply": applies, "rollback": rollbacks, "full reboot of the host without an image": plain,
	} {
		t.Logf("%s: median %v of %v, %.2f of a full reboot of this host", name, middle(all), all,
			float64(middle(all))/float64(middle(full)))
	}
	t.Logf("full reboot, with the soft reboot into the last good root: %v", full)
	if middle(applies) >= middle(full) || middle(rollbacks) >= middle(full) {
		t.Error("a switch takes as long as a full reboot")
	}
}

// fullRebootsOf returns how long the web server is away at full reboots of the host: from the last answer before each
// to the first one when the host has settled.
func (s *site) fullRebootsOf(rounds int) (took []time.Duration) {
	s.Helper()
	for range rounds {
		probe := s.host.NewProbe(s.T)
		if _, err := s.host.FullReboot(s.Context(), "systemctl", "reboot"); err != nil {
			s.Fatal(err)
		}
		s.settled()
		if !s.host.Await(s.T, s.host.Patience(), func() bool { return len(probe.Outages()) > 0 }) {
			s.Fatal("the web server does not answer after a full reboot")
		}
		probe.Stop()
		away := probe.Outages() // a resumption closes the port twice
		took = append(took, away[len(away)-1].To.Sub(away[0].From).Round(time.Millisecond))
	}
	return took
}
