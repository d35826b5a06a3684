package outage

import (
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
)

// Look is what one look at the host shows.
type Look struct {
	// Mount is the number of the mount at /, 0 when it is not known.
	Mount int
	// Ports are open; Services run.
	Ports    []listening.Port
	Services []string
}

// Witness records when ports, services and the mount at / change during a switch. It looks at nothing itself: the
// caller passes each [Look] to See.
type Witness struct {
	begin    time.Duration // the uptime at the request
	mount    int           // at the last look
	switched time.Duration
	ports    []port
	services []Away
}

// port is a port to watch, with all sockets that listened at it.
type port struct {
	Away
	sockets []listening.Port
}

// NewWitness returns a witness of a switch that is requested now, at an uptime. The ports and services are those to
// watch; a service that does not run at the first look is not watched.
func NewWitness(now time.Duration, ports []listening.Port, first Look) *Witness {
	w := &Witness{begin: now, mount: first.Mount}
	for _, p := range ports {
		if p.Local || !p.IsCoveredBy(first.Ports) {
			continue
		}
		name := portName(p)
		i := slices.IndexFunc(w.ports, func(known port) bool { return known.Name == name })
		if i < 0 {
			i = len(w.ports)
			w.ports = append(w.ports, port{Away: Away{Name: name, Unit: p.Unit}})
		}
		w.ports[i].sockets = append(w.ports[i].sockets, p)
	}
	for _, name := range first.Services {
		w.services = append(w.services, Away{Name: name})
	}
	return w
}

// See records what a look shows that was taken at an uptime.
func (w *Witness) See(now time.Duration, l Look) {
	since := max(now-w.begin, 1)
	if l.Mount != 0 && l.Mount != w.mount {
		w.mount, w.switched = l.Mount, since
	}
	for i := range w.ports {
		p := &w.ports[i]
		p.see(since, !slices.ContainsFunc(p.sockets, func(s listening.Port) bool { return !s.IsCoveredBy(l.Ports) }))
	}
	for i := range w.services {
		w.services[i].see(since, slices.Contains(l.Services, w.services[i].Name))
	}
}

// see records whether it is there. If it goes away more than once, Back is when it came back for the last time.
func (a *Away) see(since time.Duration, there bool) {
	switch {
	case !there && a.Gone == 0:
		a.Gone = since
	case !there:
		a.Back = 0
	case a.Gone > 0 && a.Back == 0:
		a.Back = since
	}
}

// Tell returns a switch with what was recorded. Armed is the uptime at which the next root was armed, 0 when it is not
// known. Services that stayed are left out.
func (w *Witness) Tell(now, armed, arming time.Duration, s Switch) Switch {
	s.Judged, s.Switched = max(now-w.begin, 1), w.switched
	if armed > w.begin {
		s.Armed, s.Arming = armed-w.begin, arming
	}
	for _, p := range w.ports {
		s.Ports = append(s.Ports, p.Away)
	}
	for _, a := range w.services {
		if a.Gone == 0 {
			continue
		}
		s.Services = append(s.Services, a)
		s.LastGone, s.LastBack = max(s.LastGone, a.Gone), max(s.LastBack, a.Back)
		s.FirstGone = earlier(s.FirstGone, a.Gone)
		s.FirstBack = earlier(s.FirstBack, a.Back)
	}
	return s
}

// earlier returns the earlier of two moments that were seen.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
