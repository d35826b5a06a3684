package fleetlock

import (
	"context"
	"fmt"
	"time"
)

// The bounds of a pause between two tries.
const (
	leastPause = time.Second
	mostPause  = 5 * time.Minute
)

// Backoff returns the pause after a failed try: 0 is the first. It is spread over the whole range up to a bound, which
// doubles with every try, from 2 seconds to 5 minutes, so that the hosts of a fleet do not ask together; random is in
// [0, 1). It is never less than a second.
func Backoff(try int, random float64) time.Duration {
	bound := mostPause
	if try = max(0, try); try < 8 { // 2 s << 8 is more than 5 minutes
		bound = min(mostPause, 2*time.Second<<try)
	}
	return leastPause + time.Duration(random*float64(bound-leastPause))
}

// Wait is how a host waits for a slot.
type Wait struct {
	Within time.Duration                              // how long it asks; it asks at least once
	Now    func() time.Time                           // a clock
	Sleep  func(context.Context, time.Duration) error // returns early, with an error, when the context ends
	Random func() float64                             // in [0, 1)
	Failed func(err error, pause time.Duration)       // is called after each failed try but the last
}

// TakeWithin takes a slot, and asks again as long as it gets none, whether the server refuses or does not answer. The
// error is that of the last try.
func (c Client) TakeWithin(ctx context.Context, w Wait) error {
	if err := c.Validate(); err != nil {
		return err
	}
	start := w.Now()
	for try := 0; ; try++ {
		err := c.Take(ctx)
		if err == nil {
			return nil
		}
		pause := Backoff(try, w.Random())
		if ctx.Err() != nil || w.Now().Add(pause).Sub(start) > w.Within {
			return fmt.Errorf("no slot of the group %s after %v: %w", c.Group, w.Now().Sub(start).Round(time.Second), err)
		}
		w.Failed(err, pause)
		if sleepErr := w.Sleep(ctx, pause); sleepErr != nil {
			return fmt.Errorf("no slot of the group %s: %w: %w", c.Group, sleepErr, err)
		}
	}
}
