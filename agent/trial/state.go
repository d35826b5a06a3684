package trial

import (
	"context"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/facts"
)

// kindState is the kind of the check of the state, which comes before all others.
const kindState = "state"

// Mounts that the new root makes itself, such as network file systems, may come after it has started.
const (
	stateLimit    = 30 * time.Second
	stateInterval = time.Second
)

// stateInPlace checks that everything that was carried over is mounted from where it was before the switch. A root
// without the data of its host is never good: services would start on empty directories.
func (t *Trial) stateInPlace(ctx context.Context, f facts.Facts, rec *record.Record) health.Result {
	start := t.Now()
	result := health.Result{Name: "state", Kind: kindState, Verdict: health.OK}
	limit := min(stateLimit, t.timeLeft())
	for {
		displaced := t.Machine.Mounts.Displaced(rec.Switch.KeptSince(f.BootID), roots.HostMount)
		result.Took = t.Now().Sub(start)
		if len(displaced) == 0 {
			result.Verdict, result.Reason = health.OK, ""
			return result
		}
		result.Verdict, result.Reason = health.Fail, strings.Join(displaced, "; ")
		if result.Took >= limit {
			return result
		}
		select {
		case <-ctx.Done():
			return result
		case <-time.After(stateInterval):
		}
	}
}
