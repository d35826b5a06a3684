package source

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// metadataTime is how long one source may take for tags, manifests, configurations and signatures together, however it
// spreads it. 64 signatures on a line where each request takes two seconds need five minutes. Layers are not under it:
// they are as large as they are, and have a least rate.
const metadataTime = 10 * time.Minute

// errTooLong is why a source that answers without end is given up on.
var errTooLong = errors.New("manifests and signatures took too long in all")

// budget is time that is used up while somebody waits for metadata.
type budget struct {
	left atomic.Int64 // in nanoseconds
}

// spend returns a context that ends with the budget. The returned function ends the spending; it explains an error
// that came of it.
func (b *budget) spend(ctx context.Context) (context.Context, func(error) error) {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(b.left.Load()), errTooLong)
	return ctx, func(err error) error {
		late := context.Cause(ctx) == errTooLong
		cancel()
		b.left.Add(-int64(time.Since(start)))
		if err != nil && late {
			return fmt.Errorf("%w: %w", ErrUnreachable, errTooLong)
		}
		return err
	}
}
