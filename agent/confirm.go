package agent

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/trial"
)

// Confirm runs in every root once it is up. After a switch it checks where the host arrived: a healthy root is marked
// good, an unhealthy one is rolled back. The error is a [transition.ErrSwitch], reported once, when the switch ended
// in another root, and a [record.ErrUnhealthy] after a rollback, reported until the next switch.
func (a *Agent) Confirm(ctx context.Context) (trial.Confirmed, error) {
	if err := a.RequireRunning(); err != nil {
		return trial.Confirmed{}, err
	}
	unlock, err := a.Lock(ctx, "confirm", true)
	if err != nil {
		return trial.Confirmed{}, err
	}
	defer unlock()
	// What a root withdraws counts even if it is rolled back: an image may have come for that.
	if err := a.KeepRestrictions(); err != nil {
		a.Log.Warn(err.Error())
	}
	const tries, pause = 10, 2 * time.Second // as long as systemd may take to re-execute on a slow machine
	for try := 1; ; try++ {
		done, err := a.Trial.Confirm(ctx)
		if err == nil || try == tries || !a.Trial.IsTransient(err) {
			return done, err
		}
		a.Log.Warn("cannot confirm the running root yet; trying again", zap.Error(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return done, err
		}
	}
}
