package agent

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/trial"
)

// Confirm runs in every root once it is up. After a switch it proves that the host is where it was sent, and marks the
// root good when it is healthy; when it is not, it goes back. A switch that ended elsewhere is an error, told once; one
// that ended in going back is an error until the next switch.
func (a *Agent) Confirm(ctx context.Context) (trial.Confirmed, error) {
	if err := a.RequireRunning(); err != nil {
		return trial.Confirmed{}, err
	}
	unlock, err := a.Lock(ctx, "confirm", true)
	if err != nil {
		return trial.Confirmed{}, err
	}
	defer unlock()
	const tries, pause = 10, 2 * time.Second // as long as systemd may take to be executed anew on a slow machine
	for range tries - 1 {
		done, err := a.Trial.Confirm(ctx)
		if err == nil || !a.Trial.MayPass(err) {
			return done, err
		}
		a.Log.Warn("cannot confirm; it is tried again", zap.Error(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return done, err
		}
	}
	return a.Trial.Confirm(ctx)
}
