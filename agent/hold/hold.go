package hold

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
)

const (
	// Limit is the timeout after which the kernel releases a port. The guard renews it while it works.
	Limit = time.Minute
	// drainLimit is how long programs may take to accept the connections that arrived before. They take milliseconds.
	drainLimit = 300 * time.Millisecond
)

// Holder holds ports during a switch. A nil Holder holds none.
type Holder struct {
	host  *host.Host
	watch *watch
	// filter decides about all ports, nil if only those of a list are held.
	filter *filter
	// queued is whether systemd reports a soft reboot.
	queued atomic.Bool

	mu    sync.Mutex
	table machine.HeldPorts // nil when nothing is held any more
}

// Begin holds what the configuration says for a switch that is about to be requested, and waits until the connections
// that arrived before at the ports of the list are accepted. Active are the active units. It returns nil if there is
// nothing to hold, or nothing can be held, which is logged.
func Begin(ctx context.Context, h *host.Host, s record.Switch, active []string) *Holder {
	if !isWanted(h) {
		return nil
	}
	look := h.Machine.Observe(s.Before.Running)()
	var ports []uint16
	var filters []string
	var err error
	if len(h.Config.Switch.Hold) > 0 {
		if ports, err = portsOf(h, look.Ports, append(survivors(ctx, h), s.Units...)); err != nil {
			h.Log.Warn("new connections are refused during the switch", zap.Error(err))
		} else if len(ports) == 0 {
			h.Log.Info("no port of the list is held", zap.String("reason", nothingToHold))
		}
	}
	if h.Config.Switch.HoldFirewall {
		if filters = filtersIn(active); len(filters) == 0 {
			h.Log.Info("not all ports are held", zap.String("reason", noFilter))
		}
	}
	if len(ports) == 0 && len(filters) == 0 {
		return nil
	}
	table, err := h.Machine.Ports.Open()
	if err != nil {
		h.Log.Warn("new connections are not held during the switch", zap.Error(err))
		return nil
	}
	o := &Holder{host: h, table: table, watch: newWatch(h.Machine.Kernel.SinceBoot(), ports, look)}
	begun := false
	defer func() {
		if !begun { // also after a fault nobody thought of
			o.End()
		}
	}()
	if err := o.begin(ports, filters); err != nil {
		o.fail(err)
		return nil
	}
	begun = true
	return o
}

// isWanted reports whether the configuration says to hold something, and this machine can.
func isWanted(h *host.Host) bool {
	return (len(h.Config.Switch.Hold) > 0 || h.Config.Switch.HoldFirewall) && h.Machine.Ports != nil &&
		h.Machine.Observe != nil
}

// begin holds ports, and all of them if there is a packet filter.
func (o *Holder) begin(ports []uint16, filters []string) error {
	if len(filters) > 0 {
		o.filter = &filter{before: filters, mount: o.watch.mount, held: true, renewed: o.host.Machine.Kernel.SinceBoot()}
		if err := o.table.HoldAll(Limit); err != nil {
			return err
		}
		o.host.Log.Info("new connections to all ports are held until the packet filter is back",
			zap.Strings("units", filters))
	}
	if len(ports) == 0 {
		return nil
	}
	if err := o.table.Hold(ports, Limit); err != nil {
		return err
	}
	if !o.table.Drained(ports, drainLimit) {
		o.host.Log.Info("some connections were not accepted in time: clients that are gone, or a program that is busy")
	}
	o.host.Log.Info("new connections are held until services are back", zap.Uint16s("ports", ports))
	return nil
}

// Expect notes whether systemd reports a soft reboot. It never waits.
func (o *Holder) Expect(softReboot bool) {
	if o != nil {
		o.queued.Store(softReboot)
	}
}

// See holds and releases ports by a look at the host that was taken at an uptime.
func (o *Holder) See(now time.Duration, l outage.Look) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.table == nil {
		return
	}
	before := o.watch.mount
	hold, renew, release := o.watch.see(now, l, o.queued.Load())
	if o.watch.mount != before { // it was the last root's systemd that said so
		o.queued.Store(false)
	}
	err := o.seeFilter(now)
	if len(renew) > 0 && err == nil {
		err = o.table.Hold(renew, Limit)
	}
	if len(release) > 0 && err == nil {
		err = o.table.Release(release)
		o.host.Log.Info("connections are let through again", zap.Uint16s("ports", release), zap.Error(err))
	}
	if len(hold) > 0 && err == nil {
		err = o.table.Hold(hold, Limit)
		o.host.Log.Info("new connections are held", zap.Uint16s("ports", hold), zap.Error(err))
	}
	if err != nil {
		o.fail(err)
	}
}

// seeFilter holds and releases all ports. The watch has seen the look.
func (o *Holder) seeFilter(now time.Duration) error {
	if o.filter == nil {
		return nil
	}
	was := o.filter.held
	switch o.filter.see(now, o.watch.mount, o.watch.stopping) {
	case holdAll:
		if !was {
			o.host.Log.Info("new connections to all ports are held")
		}
		return o.table.HoldAll(Limit)
	case releaseAll:
		o.host.Log.Info("the packet filter is back: new connections are let through again")
		return o.table.ReleaseAll()
	}
	return nil
}

// fail gives up holding: no port stays held because of a fault.
func (o *Holder) fail(err error) {
	o.host.Log.Warn("ports are no longer held", zap.Error(errors.Join(err, o.table.Close())))
	o.table = nil
}

// End releases all ports.
func (o *Holder) End() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.table == nil {
		return
	}
	if err := o.table.Close(); err != nil { // they are released when the guard has ended
		o.host.Log.Warn("cannot release ports", zap.Error(err))
	}
	o.table = nil
}
