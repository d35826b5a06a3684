package health

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/systemd"
)

// waysIn matches the units through which people reach the host.
var waysIn = regexp.MustCompile(`^(ssh|sshd|dropbear|tinysshd)\.(service|socket)$`)

// maxCompared bounds how many units and ports are noted before a switch.
const maxCompared = 256

// isUp reports whether a unit is a service whose process runs, or a socket that waits. Services that have done their
// work and stay active run no process, and the sockets of systemd come and go with its versions.
func isUp(u systemd.Unit) bool {
	return u.Active == "active" && (strings.HasSuffix(u.Name, ".service") && u.Sub == "running" ||
		strings.HasSuffix(u.Name, ".socket") && !strings.HasPrefix(u.Name, "systemd-"))
}

// runsByChance reports whether a unit runs at this time by chance: somebody made it at run time, or a timer started it
// and nothing else would.
func runsByChance(ctx context.Context, g Gate, unit string) bool {
	d, err := g.Systemd.Details(ctx, unit)
	isTimer := func(unit string) bool { return strings.HasSuffix(unit, ".timer") }
	return err == nil && (d.Transient || len(d.WantedBy) == 0 && slices.ContainsFunc(d.TriggeredBy, isTimer))
}

// noteRunning notes which services and sockets are up, and at which ports the services listen.
func noteRunning(g Gate, units []systemd.Unit, b *Before) {
	others := func(unit string) bool { return g.isOwn(unit) || isOfUsers(unit) || g.isIgnored(unit) }
	b.Running = slices.DeleteFunc(systemd.NamesOf(units, isUp), others)
	b.Running = firstWaysIn(b.Running, func(unit string) string { return unit })
	if g.Ports == nil {
		return
	}
	ports, err := g.Ports()
	if err != nil { // what is not known is not compared
		return
	}
	ports = slices.DeleteFunc(ports, func(p listening.Port) bool { return others(p.Unit) })
	b.Ports = firstWaysIn(ports, func(p listening.Port) string { return p.Unit })
}

// firstWaysIn returns at most maxCompared of a list, beginning with the ways in.
func firstWaysIn[T any](list []T, unitOf func(T) string) []T {
	rank := func(v T) int {
		if waysIn.MatchString(unitOf(v)) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b T) int { return rank(a) - rank(b) })
	return list[:min(len(list), maxCompared)]
}

// asBefore compares the services and ports with those before the switch.
func asBefore(ctx context.Context, g Gate, before Before) []Result {
	if before.Unknown || len(before.Running) == 0 {
		return nil
	}
	units, err := g.Systemd.Units(ctx)
	if err != nil {
		return []Result{g.timed("services as before", KindUnits, func() Result { return failf("%v", err) })}
	}
	up := systemd.NamesOf(units, func(u systemd.Unit) bool { return u.Active == "active" || u.Active == "reloading" })
	gone := slices.DeleteFunc(slices.Clone(before.Running), func(u string) bool {
		return slices.Contains(up, u) || g.isIgnored(u)
	})
	results := []Result{g.timed("services as before", KindUnits, func() Result { return g.services(ctx, gone, up) })}
	if g.Ports == nil {
		return append(results, g.timed("ways in", KindUnits, func() Result { return waysInUp(gone, up) }))
	}
	now, err := g.Ports()
	if err != nil {
		return append(results, g.timed("ports as before", KindPort, func() Result { return warnf("%v", err) }))
	}
	closed := slices.DeleteFunc(slices.Clone(before.Ports), func(p listening.Port) bool {
		return p.IsCoveredBy(now) || g.isIgnored(p.Unit)
	})
	return append(results,
		g.timed("ways in", KindUnits, func() Result {
			if r := waysInUp(gone, up); r.Verdict == Fail {
				return r
			}
			return waysInOpen(closed, now, up)
		}),
		g.timed("ports as before", KindPort, func() Result { return portsOpen(closed, up) }))
}

// waysInUp checks that a way in is left if there was one.
func waysInUp(gone, up []string) Result {
	ways := slices.DeleteFunc(slices.Clone(gone), func(u string) bool { return !waysIn.MatchString(u) })
	if len(ways) > 0 && !slices.ContainsFunc(up, waysIn.MatchString) {
		return failf("nobody can log in over the network: %s was active before the switch, and nothing like it is now",
			strings.Join(ways, ", "))
	}
	return Result{}
}

// waysInOpen checks that each port at which a way in listened for others is still served, at least over one of IPv4 and
// IPv6. PID 1 may listen there instead, as a socket unit. Ports for this host only do not count: without pam_systemd,
// those that a session forwards look like sshd's own, and they end with the session.
func waysInOpen(closed, now []listening.Port, up []string) Result {
	bySocket := slices.ContainsFunc(up, func(u string) bool {
		return waysIn.MatchString(u) && strings.HasSuffix(u, ".socket")
	})
	for _, p := range closed {
		other := slices.ContainsFunc(now, func(n listening.Port) bool {
			return n.Protocol == p.Protocol && n.Number == p.Number && !n.Local
		})
		if waysIn.MatchString(p.Unit) && !p.Local && !other && !bySocket {
			return failf("nothing listens any more at %v", p)
		}
	}
	return Result{}
}

// portsOpen warns of the ports that are no longer served although their unit is up: an image may change its ports.
func portsOpen(closed []listening.Port, up []string) Result {
	var list []string
	for _, p := range closed {
		if slices.Contains(up, p.Unit) {
			list = append(list, p.String())
		}
	}
	if len(list) > 0 {
		return warnf("nothing listens any more at %s", strings.Join(list, ", "))
	}
	return Result{}
}

// services checks the units that were up before the switch and are not now; up lists those that are. One that this
// root would start, because an active unit wants it, must run. The others are named.
func (g Gate) services(ctx context.Context, gone, up []string) Result {
	var missing, stopped []string
	for _, u := range gone {
		d, err := g.Systemd.Details(ctx, u)
		isUp := func(u string) bool { return slices.Contains(up, u) }
		switch {
		case err != nil:
			return failf("%v", err)
		case d.Transient || slices.ContainsFunc(d.TriggeredBy, isUp) || d.OnBus && !slices.ContainsFunc(d.WantedBy, isUp):
			// it runs when somebody needs it
		case d.Exists && slices.ContainsFunc(d.WantedBy, isUp) && !d.Declined && (d.Ended == 0 || d.Ended < g.Since):
			missing = append(missing, u)
		default:
			stopped = append(stopped, u)
		}
	}
	slices.Sort(missing)
	slices.Sort(stopped)
	switch {
	case len(missing) > 0:
		return failf("these ran before the switch and do not run now, although this root starts them: %s",
			strings.Join(missing, ", "))
	case len(stopped) > 0:
		return warnf("these ran before the switch, and this root does not have them or does not start them: %s",
			strings.Join(stopped, ", "))
	}
	return Result{}
}
