package source

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/updatectl/updatectl/image/failure"
)

// metadataTime is how long a source may take for all tags, manifests, configurations and signatures together. 64
// signatures take five minutes if each request takes two seconds. Layers do not count: they can be large, and have
// a least rate instead.
const metadataTime = 10 * time.Minute

// errTooLong is the cause when a source exceeds metadataTime.
var errTooLong = errors.New("manifests and signatures took too long in total")

// budget is the time left to wait for metadata.
type budget struct {
	left atomic.Int64 // in nanoseconds
}

// spend returns a context that ends when the budget is used up, and a function that must be called at the end. That
// function replaces an error that the end of the budget caused.
func (b *budget) spend(ctx context.Context) (context.Context, func(error) error) {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(b.left.Load()), errTooLong)
	return ctx, func(err error) error {
		late := context.Cause(ctx) == errTooLong
		cancel()
		b.left.Add(-int64(time.Since(start)))
		if err != nil && late {
			return fmt.Errorf("%w: %w", failure.ErrUnreachable, errTooLong)
		}
		return err
	}
}
