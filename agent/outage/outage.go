// Package outage answers how long the services of this host were away at its switches, and what the time was spent on.
// It only observes: nothing it measures decides anything.
package outage

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
)

// Step is something that was done before the switch was requested, such as staging the image.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// Switch is a switch as it was measured. Its moments are counted from the request, by the monotonic clock, and 0 when
// they were not seen.
type Switch struct {
	// At is when the switch was requested. It is the same in the record.
	At      time.Time `json:"at"`
	Verb    string    `json:"verb"`
	From    string    `json:"from"`
	Root    string    `json:"root"`
	Version string    `json:"version,omitempty"`
	// Good is whether the host ended in the root that it was sent to, and confirmed it.
	Good bool `json:"good"`
	// Steps were done before the request, while all services ran.
	Steps []Step `json:"steps,omitempty"`
	// FirstGone and LastGone are when the first and the last service ended, FirstBack and LastBack when the first and
	// the last one ran again; the last one is the last that came back at all.
	FirstGone time.Duration `json:"first_gone_ns,omitempty"`
	LastGone  time.Duration `json:"last_gone_ns,omitempty"`
	FirstBack time.Duration `json:"first_back_ns,omitempty"`
	LastBack  time.Duration `json:"last_back_ns,omitempty"`
	// Armed is when the next root was mounted at /run/nextroot, which took Arming. Switched is when it was mounted at /.
	Armed    time.Duration `json:"armed_ns,omitempty"`
	Arming   time.Duration `json:"arming_ns,omitempty"`
	Switched time.Duration `json:"switched_ns,omitempty"`
	// Judged is when the guard saw that the switch was over, up to a second after the verdict of the health checks.
	Judged time.Duration `json:"judged_ns,omitempty"`
	// Ports were open before the switch; Services ran.
	Ports    []Away `json:"ports,omitempty"`
	Services []Away `json:"services,omitempty"`
}

// Away is how long a port or a service was away. Its moments are counted as those of the switch.
type Away struct {
	// Name is "tcp:80" or "nginx.service"; Unit is the unit that listened at a port, "" for a service.
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"`
	// Gone is when it was first seen to be away, 0 if never. Back is when it was there again, 0 if it never was.
	Gone time.Duration `json:"gone_ns,omitempty"`
	Back time.Duration `json:"back_ns,omitempty"`
}

// Took returns how long it was away, 0 when it never went away or never came back.
func (a Away) Took() time.Duration {
	if a.Gone == 0 || a.Back == 0 {
		return 0
	}
	return a.Back - a.Gone
}

// Outage returns how long it took from the first port that closed to the last one that opened again; on a host without
// ports, from the first service that ended to the last one that ran again. It is 0 when nothing went away, and when
// nothing came back.
func (s Switch) Outage() time.Duration {
	if first, last := ends(s.Ports); first > 0 && last > 0 {
		return last - first
	}
	if s.FirstGone == 0 || s.LastBack == 0 {
		return 0
	}
	return s.LastBack - s.FirstGone
}

// ends returns when the first of a list went away, and when the last one of it came back.
func ends(list []Away) (first, last time.Duration) {
	for _, a := range list {
		if a.Gone > 0 && (first == 0 || a.Gone < first) {
			first = a.Gone
		}
		last = max(last, a.Back)
	}
	return first, last
}

// Phase is a part of a switch. All of them follow each other without a gap.
type Phase struct {
	Name string `json:"name"`
	// From and To are counted from the request.
	From time.Duration `json:"from_ns"`
	To   time.Duration `json:"to_ns"`
	// Last is the service or port that the next phase had to wait for, "" when it is not known.
	Last string `json:"last,omitempty"`
}

// Phases returns the parts of a switch that were seen, from the request to the verdict.
func (s Switch) Phases() []Phase {
	last := s.LastBack
	back := lastOf(s.Services, func(a Away) time.Duration { return a.Back })
	if _, port := ends(s.Ports); port > last {
		last, back = port, lastOf(s.Ports, func(a Away) time.Duration { return a.Back })
	}
	gone := lastOf(s.Services, func(a Away) time.Duration { return a.Gone })
	arm := max(s.Armed-s.Arming, 0)
	wait := s.FirstGone
	if arm > 0 { // services have stopped by then, also if that was seen later
		wait = min(wait, arm)
	}
	var list []Phase
	var from time.Duration
	for _, p := range []Phase{
		{Name: "wait", To: wait},
		{Name: "stop", To: cmp.Or(arm, s.LastGone), Last: gone},
		{Name: "arm", To: s.Armed},
		{Name: "switch", To: s.Switched},
		{Name: "execute", To: s.FirstBack},
		{Name: "start", To: last, Last: back},
		{Name: "health", To: s.Judged},
	} {
		if p.To > from {
			p.From, from = from, p.To
			list = append(list, p)
		}
	}
	return list
}

// lastOf returns the name of the one that a moment comes last for.
func lastOf(list []Away, moment func(Away) time.Duration) string {
	if len(list) == 0 {
		return ""
	}
	return slices.MaxFunc(list, func(a, b Away) int { return cmp.Compare(moment(a), moment(b)) }).Name
}

// portName returns the name of a port. The ports of both families count as one.
func portName(p listening.Port) string {
	return p.Protocol + ":" + strconv.Itoa(p.Number)
}
