package trial

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
)

// kindState is the kind of the check of the state, which comes before all others.
const kindState = "state"

// Mounts that the new root makes itself, such as network file systems, may come after it has started.
const (
	stateLimit    = 30 * time.Second
	stateInterval = time.Second
)

// stateInPlace checks that everything that was carried over is mounted from where it was before the switch. A root
// without the data of its host is unhealthy: services would start on empty directories.
func (t *Trial) stateInPlace(ctx context.Context, f facts.Facts, rec *record.Record) health.Result {
	start := t.Now()
	result := health.Result{Name: "state", Kind: kindState, Verdict: health.OK}
	limit := min(stateLimit, t.timeLeft())
	for {
		dirs := rec.Switch.KeptSince(f.BootID)
		isHost := func(d kept.Dir) bool { return d.Path == roots.HostMount }
		displaced := t.Machine.Mounts.Displaced(slices.DeleteFunc(slices.Clone(dirs), isHost), roots.HostMount)
		result.Took = t.Now().Sub(start)
		if len(displaced) == 0 {
			result.Verdict, result.Reason = health.OK, ""
			// Nothing of the root lies on the host root, which only the next way there needs: a full reboot leads to it, too.
			if at := slices.IndexFunc(dirs, isHost); at >= 0 {
				if hidden := t.Machine.Mounts.Displaced(dirs[at:at+1], roots.HostMount); len(hidden) > 0 {
					result.Verdict, result.Reason = health.Warn, strings.Join(hidden, "; ")
				}
			}
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
