package health

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// gatewayPrefix tells a gateway from an address in [Before.Reachable].
const gatewayPrefix = "gateway "

// gatewayTime is how long a gateway may take to answer: three requests, a second apart.
const gatewayTime = 3 * time.Second

// reached lists what can be reached now.
func (g Gate) reached(ctx context.Context) []string {
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

// network asks for what could be reached before. A host name is looked up again only if that worked, too: it was
// reached by it.
func (g Gate) network(ctx context.Context, before Before) []Result {
	if g.Config.Reachable == ReachableOff {
		return nil
	}
	var results []Result
	for _, what := range before.Reachable {
		results = append(results, g.timed(what, KindNetwork, func() Result {
			if err := g.reach(ctx, what); err != nil {
				r := failf("it could be reached before the switch: %v", err)
				r.hurried = over(ctx)
				return r
			}
			return Result{}
		}))
	}
	return results
}

func (g Gate) reach(ctx context.Context, what string) error {
	gateway, isGateway := strings.CutPrefix(what, gatewayPrefix)
	if !isGateway {
		return g.answers(ctx, what)
	}
	addr, err := netip.ParseAddr(gateway)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	return g.AskGateway(ctx, addr)
}
