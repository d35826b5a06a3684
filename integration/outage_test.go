//go:build lab

package integration

import (
	"fmt"
	"slices"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// measured is the part of `updatectl analyze --output json` that the tests read.
type measured struct {
	Switches []struct {
		Verb   string
		Good   bool
		Outage time.Duration `json:"outage_ns"`
		Arming time.Duration `json:"arming_ns"`
		Armed  time.Duration `json:"armed_ns"`
		// FirstGone is when the first service was seen to be gone.
		FirstGone time.Duration `json:"first_gone_ns"`
		Phases    []struct{ Name string }
		Ports     []closed
	}
}

// closed is when a port was closed and opened again.
type closed struct {
	Name string
	Gone time.Duration `json:"gone_ns"`
	Back time.Duration `json:"back_ns"`
}

// measuredAs expects the host to have measured how long its web server was away at the last switches, as clients
// outside saw it. All phases of a switch must have been seen.
func (s *site) measuredAs(outages []lab.Outage) {
	s.Helper()
	var m measured
	s.answer(&m, exitDone, "analyze", "--last", fmt.Sprint(len(outages)))
	if len(m.Switches) != len(outages) {
		s.Fatalf("%d switches were measured, want %d", len(m.Switches), len(outages))
	}
	for i, sw := range m.Switches {
		var phases []string
		for _, p := range sw.Phases {
			phases = append(phases, p.Name)
		}
		want := []string{"wait", "stop", "arm", "switch", "execute", "start", "health"}
		if sw.FirstGone >= sw.Armed-sw.Arming { // all services have stopped between two looks
			want = slices.Delete(want, 1, 2)
		}
		if !slices.Equal(phases, want) {
			s.Errorf("the phases of switch %d are %v, want %v", i, phases, want)
		}
		const web = "tcp:80"
		n := slices.IndexFunc(sw.Ports, func(p closed) bool { return p.Name == web && p.Back > 0 })
		if n < 0 {
			s.Errorf("switch %d did not see %s: %+v", i, web, sw.Ports)
			continue
		}
		// The socket listens before the server answers, on a busy machine a second before.
		inside, outside := sw.Ports[n].Back-sw.Ports[n].Gone, outages[i].Length()
		s.Logf("%s: %s was closed for %v, clients saw %v; arming took %v, the outage %v", sw.Verb, web,
			inside.Round(time.Millisecond), outside.Round(time.Millisecond), sw.Arming.Round(time.Millisecond),
			sw.Outage.Round(time.Millisecond))
		if !sw.Good || inside < outside/2 || inside > outside+max(outside/4, 100*time.Millisecond) {
			s.Errorf("switch %d (good: %v) measured %v, clients saw %v", i, sw.Good, inside, outside)
		}
	}
}
