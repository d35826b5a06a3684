package guard

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/hold"
)

// holdPatience is how long it may take to hold ports. It takes less than a second.
const holdPatience = 5 * time.Second

// holdPorts begins to hold ports for a switch that cannot have been requested yet: systemd waits for the guard. The
// result is nil if none is held.
func holdPorts(ctx context.Context, g *watch) *hold.Holder {
	if len(g.Config.Switch.Hold) == 0 && !g.Config.Switch.HoldFirewall {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	begun := make(chan *hold.Holder, 1)
	err := waitAtMost(holdPatience, func() error {
		begun <- nonPanicking(g, func() *hold.Holder { return hold.Begin(ctx, g.Host, g.change, g.activeUnits) })
		return nil
	})
	if err != nil {
		g.Log.Warn("new connections are refused during the switch", zap.Error(err))
		go end(g, begun)
		return nil
	}
	return <-begun
}

// release ends what holds ports. If the kernel does not answer, it ends with the guard.
func release(g *watch, held *hold.Holder) {
	if held == nil {
		return
	}
	begun := make(chan *hold.Holder, 1)
	begun <- held
	if err := waitAtMost(holdPatience, func() error { end(g, begun); return nil }); err != nil {
		g.Log.Warn("cannot release ports", zap.Error(err))
	}
}

// end releases all ports, once they are held.
func end(g *watch, begun <-chan *hold.Holder) {
	nonPanicking(g, func() any { (<-begun).End(); return nil })
}
