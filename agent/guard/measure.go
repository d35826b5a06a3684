package guard

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/hold"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
)

// Looks are this far apart, and up to mostPause on a slow machine, so that they take a tenth of a processor.
const (
	lookPause = 20 * time.Millisecond
	lookShare = 10
	mostPause = 200 * time.Millisecond
)

// measure begins to measure the switch, beside the guard, which it must never hold up. Every look is shown to what
// holds ports, too. The result ends that, and keeps what was measured if it may write.
func measure(g *watch, held *hold.Holder) (end func(write bool)) {
	if g.Machine.Observe == nil {
		return func(bool) {}
	}
	stop, seen := make(chan struct{}), make(chan *outage.Witness, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go nonPanicking(g, func() any { held.Ask(ctx); return nil })
	go func() {
		defer close(seen)
		seen <- nonPanicking(g, func() *outage.Witness { return witness(g, held, stop) })
	}()
	return func(write bool) {
		close(stop)
		cancel()
		if !write {
			return
		}
		now := g.Machine.Kernel.SinceBoot()
		err := waitAtMost(diskPatience, func() error {
			w := <-seen
			if w == nil {
				return nil // it was reported
			}
			return nonPanicking(g, func() error { return keep(g, w, now) })
		})
		if err != nil {
			g.Log.Warn("cannot keep how long the switch took", zap.Error(err))
		}
	}
}

// nonPanicking returns what do returns, and nothing if it panics: measuring and holding decide nothing, so that no
// fault in them may end the guard.
func nonPanicking[T any](g *watch, do func() T) (result T) {
	defer func() {
		if fault := recover(); fault != nil {
			g.Log.Error("the guard goes on without what has failed beside it", zap.Any("fault", fault))
		}
	}()
	return do()
}

// witness looks at the host until it is stopped, and returns what it saw.
func witness(g *watch, held *hold.Holder, stop <-chan struct{}) *outage.Witness {
	look, uptime := g.Machine.Observe(g.change.Before.Running), g.Machine.Kernel.SinceBoot
	w := outage.NewWitness(uptime(), g.change.Before.Ports, look())
	for {
		begin, seen := uptime(), look()
		w.See(begin, seen)
		nonPanicking(g, func() any { held.See(begin, seen); return nil })
		select {
		case <-stop:
			return w
		case <-time.After(min(max(lookPause, lookShare*(uptime()-begin)), mostPause)):
		}
	}
}

// keep keeps what was measured of the switch until an uptime. A switch that never began leaves nothing to keep.
func keep(g *watch, w *outage.Witness, now time.Duration) error {
	rec, err := g.readRecord()
	if err != nil {
		return err
	}
	c := g.change
	s := outage.Switch{At: c.At, Verb: c.Verb, From: c.From, Root: c.Target, Version: c.Version, Steps: c.Steps}
	var armed, arming time.Duration
	if stamp := g.Transition.ReadStamp(); stamp != nil && stamp.Target == c.Target {
		armed, arming = stamp.At, stamp.Took
	}
	s = w.Tell(now, armed, arming, s)
	if s.Switched == 0 && s.FirstGone == 0 {
		return nil
	}
	s.Good = !rec.Moving() && rec.LastGood() == c.Target
	return outage.Keep(g.Machine.Disk, g.Path(record.StateDir+"/"+outage.File), s)
}
