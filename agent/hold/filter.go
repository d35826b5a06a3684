package hold

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/pid1"
)

const (
	// askPause is how long after an answer PID 1 is asked about packet filters again.
	askPause = 500 * time.Millisecond
	// askPatience is how long it may take to answer.
	askPatience = 10 * time.Second
	// filterSettling is how long a packet filter has to be back: firewalld is active a moment before its rules are, and
	// PID 1 has nothing to do for a moment between two steps.
	filterSettling = 2 * time.Second
	// staleAfter is how long an answer of PID 1 counts.
	staleAfter = 15 * time.Second
)

// asked are the units that PID 1 is asked about: all packet filters, since the new root may have another one, and what
// restarts those that the soft reboot does not stop.
var asked = append(ending.PacketFilters(), pid1.RenewUnit)

// filtersIn returns the packet filters in a list of active units.
func filtersIn(units []string) []string {
	return slices.DeleteFunc(slices.Clone(units), func(u string) bool { return !ending.IsPacketFilter(u) })
}

// answer is what PID 1 says about packet filters.
type answer struct {
	// mount is the mount at / before PID 1 was asked: if it is the one of now, the answer is about this root.
	mount int
	at    time.Duration // the uptime
	// started is whether the root has started all units, but for the check of its health.
	started bool
	units   []pid1.UnitState
}

// askPID1 returns what PID 1 says about packet filters.
func askPID1(ctx context.Context, m machine.Machine, mount int) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	units, err := m.Units.States(ctx, asked)
	if err != nil {
		return nil, err
	}
	manager, err := m.Systemd.AskManager(ctx)
	if err != nil {
		return nil, err
	}
	return &answer{mount, m.Kernel.SinceBoot(), hasStarted(manager), units}, nil
}

// hasStarted reports whether a root has started all units, but for the check of its health, which comes last.
func hasStarted(m pid1.Manager) bool { return m.Up() || slices.Contains(m.Starting, pid1.ConfirmUnit) }

// isBack reports whether there is no packet filter to wait for any more: those that were active before the switch are
// active again. One that the root does not start is waited for until it has started all others. One that failed is
// waited for: the root is about to be left.
func (a *answer) isBack(before []string) bool {
	return !slices.ContainsFunc(a.units, func(u pid1.UnitState) bool {
		was := slices.Contains(before, u.Name)
		switch u.Active {
		case "active":
			return u.Queued
		case "inactive":
			return u.Queued || was && !a.started
		case "failed":
			return u.Queued || was && (u.Load == "loaded" || !a.started)
		}
		return true // it is about to become one of these
	})
}

// filter decides, look by look, whether connections to all ports are held.
type filter struct {
	before []string // the packet filters that were active
	mount  int      // at the last look
	held   bool
	// since is the uptime since which there is nothing to wait for, 0 while there is.
	since   time.Duration
	renewed time.Duration // the uptime at which the limit began anew last
	answer  atomic.Pointer[answer]
}

// step is what to do.
type step int

const (
	nothing step = iota
	holdAll      // also to begin the limit anew
	releaseAll
)

// see returns what to do after a look at an uptime. Mount is the one at /, and stopping whether services stop, or are
// about to. While PID 1 does not answer, the limit does not begin anew: nobody stays locked out by that.
func (f *filter) see(now time.Duration, mount int, stopping bool) step {
	a := f.answer.Load()
	isFresh := a != nil && a.mount == mount && now-a.at < staleAfter
	switched := mount != f.mount
	f.mount = mount
	switch {
	case stopping || switched || isFresh && !a.isBack(f.before):
		f.since = 0
	case isFresh && f.since == 0:
		f.since = now
	}
	was := f.held
	f.held = f.since == 0 || now-f.since < filterSettling && was
	switch {
	case f.held && (!was || now-f.renewed >= renewal && (stopping || isFresh)):
		f.renewed = now
		return holdAll
	case !f.held && was:
		return releaseAll
	}
	return nothing
}

// Ask asks PID 1 about packet filters until ctx ends. It may wait for an answer, and holds up nobody.
func (o *Holder) Ask(ctx context.Context) {
	if o == nil || o.filter == nil {
		return
	}
	for {
		if a, err := askPID1(ctx, o.host.Machine, o.mount()); err == nil {
			o.filter.answer.Store(a)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(askPause):
		}
	}
}

// mount returns the mount at / at the last look.
func (o *Holder) mount() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.watch.mount
}
