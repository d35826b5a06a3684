package health

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// gatewayPrefix marks the gateways in [Before.Reachable].
const gatewayPrefix = "gateway "

// gatewayTime is how long a gateway may take to answer: three requests, a second apart.
const gatewayTime = 3 * time.Second

// listReachable returns the gateways and sources that answer now.
func (g Gate) listReachable(ctx context.Context) []string {
	if g.Config.Reachable == ReachableOff {
		return nil
	}
	var candidates []string
	if gateways, err := g.Gateways(); err == nil {
		for _, a := range gateways {
			candidates = append(candidates, gatewayPrefix+a.String())
		}
	}
	candidates = append(candidates, g.Sources...)
	answered := make([]bool, len(candidates))
	var wg sync.WaitGroup
	for i, c := range candidates {
		wg.Go(func() { answered[i] = g.reach(ctx, c) == nil })
	}
	wg.Wait()
	var list []string
	for i, c := range candidates {
		if answered[i] {
			list = append(list, c)
		}
	}
	return list
}

// network checks what could be reached before the switch. A source with a host name also checks the name service: it
// could be reached by that name.
func (g Gate) network(ctx context.Context, before Before) []Result {
	if g.Config.Reachable == ReachableOff {
		return nil
	}
	var results []Result
	for _, what := range before.Reachable {
		results = append(results, g.timed(what, KindNetwork, func() Result {
			if err := g.reach(ctx, what); err != nil {
				r := failf("it could be reached before the switch: %v", err)
				r.cutShort = timeIsUp(ctx)
				return r
			}
			return Result{}
		}))
	}
	return results
}

// reach returns nil when a gateway or an address of [Before.Reachable] answers.
func (g Gate) reach(ctx context.Context, what string) error {
	gateway, isGateway := strings.CutPrefix(what, gatewayPrefix)
	if !isGateway {
		return g.dial(ctx, what)
	}
	addr, err := netip.ParseAddr(gateway)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	return g.AskGateway(ctx, addr)
}
