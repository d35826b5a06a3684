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
	// queued is whether systemd reports a soft reboot.
	queued atomic.Bool

	mu    sync.Mutex
	table machine.HeldPorts // nil when nothing is held any more
}

// Begin holds the ports of the configuration for a switch that is about to be requested, and waits until the
// connections that arrived before are accepted. It returns nil if there is no port to hold, or none can be held, which
// is logged.
func Begin(ctx context.Context, h *host.Host, s record.Switch) *Holder {
	if len(h.Config.Switch.Hold) == 0 || h.Machine.Ports == nil || h.Machine.Observe == nil {
		return nil
	}
	look := h.Machine.Observe(s.Before.Running)()
	ports, err := portsOf(h, look.Ports, append(survivors(ctx, h), s.Units...))
	if err == nil && len(ports) == 0 {
		h.Log.Info("no port is held", zap.String("reason", nothingToHold))
		return nil
	}
	if err != nil {
		h.Log.Warn("new connections are refused during the switch", zap.Error(err))
		return nil
	}
	table, err := h.Machine.Ports.Open()
	if err != nil {
		h.Log.Warn("new connections are refused during the switch", zap.Error(err))
		return nil
	}
	o := &Holder{host: h, table: table, watch: newWatch(h.Machine.Kernel.SinceBoot(), ports, look)}
	begun := false
	defer func() {
		if !begun { // also after a fault nobody thought of
			o.End()
		}
	}()
	if err := table.Hold(ports, Limit); err != nil {
		o.fail(err)
		return nil
	}
	if !table.Drained(ports, drainLimit) {
		h.Log.Info("some connections were not accepted in time: clients that are gone, or a program that is busy")
	}
	h.Log.Info("new connections are held until services are back", zap.Uint16s("ports", ports))
	begun = true
	return o
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
	var err error
	if len(renew) > 0 {
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
