//go:build lab && (endurance || vm)

package integration

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// TestOutageCosts measures how long a web server is away at apply and at rollback between two images, polled from
// outside, against bare `systemctl soft-reboot` in the same two roots, in turns. The container must have the machine
// for itself.
func TestOutageCosts(t *testing.T) {
	const rounds = 10
	s := newSite(t, "outagecosts")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	s.switches("rollback")
	s.thereAndBack(rounds, []string{"updatectl", "rollback"})
	t.Logf("the last switches, as the host measured them:\n%s",
		s.updatectl(exitDone, "analyze", "--last", fmt.Sprint(2*rounds)).Stdout)
	t.Logf("the last one:\n%s", s.updatectl(exitDone, "analyze").Stdout)
}

// TestOutageFromHost measures the same between the host root and an image. The first switch of a host, for which its
// whole /etc is judged, is measured once.
func TestOutageFromHost(t *testing.T) {
	s := newSite(t, "outagehost")
	t.Logf("the first apply: %v", s.outageOf("updatectl", "apply"))
	s.outageOf("updatectl", "rollback", "host")
	s.thereAndBack(5, []string{"updatectl", "rollback", "host"})
}

// thereAndBack applies what is published and goes back, in turns with bare soft reboots in both roots, and logs how
// long the web server was away, and how far predictions were off after three switches.
func (s *site) thereAndBack(rounds int, back []string) {
	s.Helper()
	const old, fresh = "bare in the old root", "bare in the new root"
	took := map[string][]time.Duration{}
	leg := func(name string, command ...string) time.Duration {
		away := s.outageOf(command...)
		took[name] = append(took[name], away)
		return away
	}
	var off []float64 // as a share of what was measured
	for round := range rounds {
		leg(old, "systemctl", "soft-reboot")
		predicted := s.predicts()
		if applied := leg("apply", "updatectl", "apply", "--retry"); round >= 2 {
			off = append(off, math.Abs(float64(predicted-applied))/float64(applied))
		}
		leg(fresh, "systemctl", "soft-reboot")
		leg("back", back...)
	}
	middle := map[string]time.Duration{}
	for _, name := range []string{old, "apply", fresh, "back"} {
		middle[name] = slices.Sorted(slices.Values(took[name]))[rounds/2]
		s.Logf("%s: median %v of %v", name, middle[name], took[name])
	}
	s.Logf("apply and the way back take %.2f times as long as bare soft reboots in both roots",
		float64(middle["apply"]+middle["back"])/float64(middle[old]+middle[fresh]))
	s.Logf("after three switches, predictions were off by %.2f", off)
}

// predicts returns how long the next switch will take by plan.
func (s *site) predicts() time.Duration {
	s.Helper()
	var d decided
	text := s.host.Run(s.Context(), "updatectl", "--output", "json", "plan").Stdout
	if err := json.Unmarshal([]byte(text), &d); err != nil || d.Outage == nil {
		s.Fatalf("no prediction (%v) in %s", err, text)
	}
	return d.Outage.Outage
}

// outageOf returns how long the web server is away when a command soft-reboots the host, from outside: from the first
// answer that is missing to the end of the last one. It returns when the host has settled.
func (s *site) outageOf(command ...string) time.Duration {
	s.Helper()
	before, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	probe := s.host.NewProbe(s.T)
	defer probe.Stop()
	if r := s.host.Run(s.Context(), command...); r.Code != 0 && r.Code < 128 {
		s.Fatalf("%v: %s", command, r)
	}
	if _, err := s.host.AwaitBoot(s.Context(), before); err != nil {
		s.Fatal(err)
	}
	if !s.host.Await(s.T, s.host.Patience(), func() bool { return len(probe.Outages()) > 0 }) {
		s.Fatalf("after %v, the web server does not answer again", command)
	}
	s.unguarded()
	s.updatectl(exitDone, "confirm")
	away := probe.Outages()
	return away[len(away)-1].To.Sub(away[0].From).Round(time.Millisecond)
}
