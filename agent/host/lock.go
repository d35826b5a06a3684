package host

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/updatectl/updatectl/agent/record"
)

// Lock keeps every other updatectl out until unlock is called or the process ends, so a killed process leaves no lock
// behind. If another one holds the lock, it returns a [record.ErrBusy], or with wait, waits for the lock until ctx
// ends. A caller other than root gets an [ErrPermission].
func (h *Host) Lock(ctx context.Context, verb string, wait bool) (unlock func(), err error) {
	if !h.Machine.Superuser {
		return nil, fmt.Errorf("cannot %s: %w", verb, ErrPermission)
	}
	file := h.Path(lockFile)
	// The note names the holder to those who have to wait.
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
		const retry = 200 * time.Millisecond // how soon a freed lock is noticed
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
