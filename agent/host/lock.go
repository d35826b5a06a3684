package host

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/updatectl/updatectl/agent/record"
)

// Lock keeps every other updatectl out for as long as this one changes anything. The kernel drops the lock with the
// process, so a killed one leaves none behind. With wait, it waits for its turn.
func (h *Host) Lock(ctx context.Context, verb string, wait bool) (unlock func(), err error) {
	if !h.Machine.Superuser {
		return nil, fmt.Errorf("cannot %s: %w", verb, ErrPermission)
	}
	file := h.Path(lockFile)
	// Who holds it, for whoever is kept out.
	note := fmt.Sprintf("%s, process %d, since %s", verb, os.Getpid(), h.Now().Format(time.RFC3339))
	for {
		unlock, holder, err := h.Machine.Disk.TryLock(file, note)
		switch {
		case err != nil:
			return nil, fmt.Errorf("cannot lock: %w", err)
		case unlock != nil:
			return unlock, nil
		case !wait:
			return nil, fmt.Errorf("%w (%s)", record.ErrBusy, holder)
		}
		const turn = 200 * time.Millisecond // how soon a freed lock is noticed
		select {
		case <-time.After(turn):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
