package source

import (
	"context"

	"golang.org/x/time/rate"
)

// newLimit returns a limit of so many bytes per second. What was not used in one second may be used in the next.
func newLimit(perSecond int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), int(perSecond))
}

// pace waits after n bytes have come, until more may come. The error is that of ctx.
func pace(ctx context.Context, limit *rate.Limiter, n int) error {
	for limit != nil && n > 0 {
		part := min(n, limit.Burst())
		if err := limit.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
