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

// TestOutageCosts measures how long a web server is away at apply and at rollback, polled from outside, against bare
// `systemctl soft-reboot` in the same two roots, in turns. The container must have the machine for itself.
func TestOutageCosts(t *testing.T) {
	const rounds = 10
	s := newSite(t, "outagecosts")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	s.switches("rollback")
	took := map[string][]time.Duration{}
	var off []float64 // of the predictions, as a share of what was measured
	for round := range rounds {
		for _, leg := range []struct {
			name string
			args []string
		}{
			{"bare in 1", []string{"systemctl", "soft-reboot"}},
			{"apply", []string{"updatectl", "apply", "--retry"}},
			{"bare in 2", []string{"systemctl", "soft-reboot"}},
			{"rollback", []string{"updatectl", "rollback"}},
		} {
			var predicted time.Duration
			if leg.name == "apply" {
				predicted = s.predicts()
			}
			took[leg.name] = append(took[leg.name], s.outageOf(leg.args...))
			if last := took[leg.name][round]; leg.name == "apply" && round >= 2 {
				off = append(off, math.Abs(float64(predicted-last))/float64(last))
			}
		}
	}
	t.Logf("after three switches, predictions were off by %.2f", off)
	middle := map[string]time.Duration{}
	for name, all := range took {
		middle[name] = slices.Sorted(slices.Values(all))[rounds/2]
		t.Logf("%s: median %v of %v", name, middle[name], all)
	}
	t.Logf("apply and rollback take %.2f times as long as bare soft reboots in both roots",
		float64(middle["apply"]+middle["rollback"])/float64(middle["bare in 1"]+middle["bare in 2"]))
	t.Logf("the last switches, as the host measured them:\n%s",
		s.updatectl(exitDone, "analyze", "--last", fmt.Sprint(2*rounds)).Stdout)
	t.Logf("the last one:\n%s", s.updatectl(exitDone, "analyze").Stdout)
}

// TestOutageFromHost measures the way from the host root to an image and back in the same manner. The first switch of a
// host, for which its whole /etc is judged, is measured once.
func TestOutageFromHost(t *testing.T) {
	const rounds = 5
	s := newSite(t, "outagehost")
	t.Logf("the first apply: %v", s.outageOf("updatectl", "apply"))
	took := map[string][]time.Duration{}
	for range rounds {
		for _, leg := range []struct {
			name string
			args []string
		}{
			{"bare in 1", []string{"systemctl", "soft-reboot"}},
			{"rollback", []string{"updatectl", "rollback", "host"}},
			{"bare in the host root", []string{"systemctl", "soft-reboot"}},
			{"apply", []string{"updatectl", "apply", "--retry"}},
		} {
			took[leg.name] = append(took[leg.name], s.outageOf(leg.args...))
		}
	}
	middle := map[string]time.Duration{}
	for name, all := range took {
		middle[name] = slices.Sorted(slices.Values(all))[rounds/2]
		t.Logf("%s: median %v of %v", name, middle[name], all)
	}
	t.Logf("apply and rollback take %.2f times as long as bare soft reboots in both roots",
		float64(middle["apply"]+middle["rollback"])/float64(middle["bare in 1"]+middle["bare in the host root"]))
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

// outageOf returns how long the web server is away when a command soft-reboots the host, from outside. It returns when
// the host has settled.
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
	if !s.host.Await(s.T, s.host.Patience(), func() bool { return len(probe.Outages()) == 1 }) {
		s.Fatalf("after %v, the outages are %v", command, probe.Outages())
	}
	s.unguarded()
	s.updatectl(exitDone, "confirm")
	return probe.Outages()[0].Length().Round(time.Millisecond)
}
