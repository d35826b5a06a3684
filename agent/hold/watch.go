package hold

import (
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/outage"
)

const (
	// patience is how long ports are held before the first service stops. By default, logind waits at most 5 seconds for
	// delay inhibitors.
	patience = 15 * time.Second
	// settling is how long a port has to be open before it is released: `nginx -t`, which tests its configuration before
	// it starts, opens its ports for a moment. One that is back only in part, such as without IPv6, is held for
	// partSettling: its program may be about to open the rest.
	settling     = 500 * time.Millisecond
	partSettling = 1500 * time.Millisecond
	// renewal is how often the limit of a held port is made to begin anew.
	renewal = 15 * time.Second
)

// watch decides, look by look, which ports are held.
type watch struct {
	began    time.Duration // the uptime of the first look
	services []string      // ran then
	mount    int           // at the last look
	going    bool          // services have begun to stop
	renewed  time.Duration // the uptime at which limits began anew last
	ports    []port
}

// port is one port, with all sockets of it that were open at the first look.
type port struct {
	number  uint16
	sockets []listening.Port
	held    bool
	// closed is whether what listened when it was held is gone.
	closed bool
	// since is the uptime since which something listens again, 0 if nothing does.
	since time.Duration
}

// newWatch returns a watch of a switch that is about to be requested, with all ports held.
func newWatch(now time.Duration, ports []uint16, first outage.Look) *watch {
	w := &watch{began: now, renewed: now, services: first.Services, mount: first.Mount}
	for _, number := range ports {
		p := port{number: number, held: true}
		for _, s := range first.Ports {
			if isReachable(s) && uint16(s.Number) == number {
				p.sockets = append(p.sockets, s)
			}
		}
		w.ports = append(w.ports, p)
	}
	return w
}

// see returns which ports to hold, whose limit to begin anew, and which to release after a look at an uptime. All are
// held from before services stop. A port is released when something listens at it again, and is held again if that
// closes, such as on the way back from an unhealthy root. If no service stops for long, all are released until one
// does.
func (w *watch) see(now time.Duration, l outage.Look) (hold, renew, release []uint16) {
	switched := l.Mount != 0 && l.Mount != w.mount
	if switched {
		w.mount = l.Mount
	}
	begins := !w.going && (switched || w.stops(l))
	w.going = w.going || begins
	overdue := !w.going && now-w.began > patience
	renews := now-w.renewed >= renewal
	if renews {
		w.renewed = now
	}
	for i := range w.ports {
		p := &w.ports[i]
		p.closed = p.closed || switched
		was := p.held
		p.held = p.next(now, l.Ports, begins, overdue)
		switch {
		case p.held && !was:
			hold = append(hold, p.number)
		case !p.held && was:
			release = append(release, p.number)
		case p.held && renews:
			renew = append(renew, p.number)
		}
	}
	return hold, renew, release
}

// stops reports whether a look shows that services stop.
func (w *watch) stops(l outage.Look) bool {
	return slices.ContainsFunc(w.services, func(s string) bool { return !slices.Contains(l.Services, s) }) ||
		slices.ContainsFunc(w.ports, func(p port) bool { return !isOpen(p.number, l.Ports) })
}

// next reports whether a port is held after a look that shows these open ports. Begins is whether it is the first that
// shows that services stop; overdue, whether none has stopped for long.
func (p *port) next(now time.Duration, open []listening.Port, begins, overdue bool) bool {
	switch {
	case !isOpen(p.number, open):
		p.closed, p.since = true, 0
		return true
	case !p.held:
		return begins
	case !p.closed:
		return !overdue
	case p.since == 0:
		p.since = now
	}
	least := settling
	if slices.ContainsFunc(p.sockets, func(s listening.Port) bool { return !s.IsCoveredBy(open) }) {
		least = partSettling
	}
	if now-p.since < least {
		return true
	}
	p.closed, p.since = false, 0
	return false
}

// isOpen reports whether other hosts can connect to a port.
func isOpen(number uint16, open []listening.Port) bool {
	return slices.ContainsFunc(open, func(p listening.Port) bool { return isReachable(p) && uint16(p.Number) == number })
}
