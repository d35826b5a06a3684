package hold

import (
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/outage"
)

const (
	// patience is how long ports are held before the shutdown begins. By default, logind waits at most 5 seconds for
	// delay inhibitors.
	patience = 15 * time.Second
	// A service that ends may be the first of the shutdown, or unrelated to it. Then ports are held for as long as
	// systemd may take to say that a soft reboot is queued, and so often at most.
	doubt, mostDoubts = 4 * time.Second, 3
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
	services []string      // ran then
	mount    int           // at the last look
	moved    bool          // there was a switch
	gone     int           // how many services and ports were away at the last look
	until    time.Duration // the uptime until which ports are held although systemd reports no soft reboot
	doubts   int           // how often a service has ended meanwhile
	renewed  time.Duration // the uptime at which limits began anew last
	ports    []port
	stopping bool // services stop, or are about to, by the last look
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
	w := &watch{until: now + patience, renewed: now, services: first.Services, mount: first.Mount}
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

// see returns which ports to hold, whose limit to begin anew, and which to release after a look at an uptime. Queued is
// whether systemd reports a soft reboot. Open ports are held while it does, and for a moment before; a closed one is
// held until something listens at it again.
func (w *watch) see(now time.Duration, l outage.Look, queued bool) (hold, renew, release []uint16) {
	switched := l.Mount != 0 && l.Mount != w.mount
	if switched {
		w.mount, w.moved = l.Mount, true
	}
	gone := w.countGone(l)
	if gone > w.gone && w.doubts < mostDoubts {
		w.doubts++
		w.until = max(w.until, now+doubt)
	}
	w.gone = gone
	w.stopping = queued && !switched || !w.moved && now <= w.until
	renews := now-w.renewed >= renewal
	if renews {
		w.renewed = now
	}
	for i := range w.ports {
		p := &w.ports[i]
		p.closed = p.closed || switched
		was := p.held
		p.held = p.next(now, l.Ports, w.stopping)
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

// countGone returns how many services and ports are away.
func (w *watch) countGone(l outage.Look) (n int) {
	for _, s := range w.services {
		if !slices.Contains(l.Services, s) {
			n++
		}
	}
	for _, p := range w.ports {
		if !isOpen(p.number, l.Ports) {
			n++
		}
	}
	return n
}

// next reports whether a port is held after a look that shows these open ports. Stopping is whether services stop, or
// are about to.
func (p *port) next(now time.Duration, open []listening.Port, stopping bool) bool {
	switch {
	case !isOpen(p.number, open):
		p.closed, p.since = true, 0
		return true
	case !p.held, !p.closed:
		return stopping
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
