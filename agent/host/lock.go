package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"go.uber.org/zap"
)

// Busy means that another updatectl holds the lock. It is a [record.ErrBusy].
type Busy struct {
	// Holder says which command that is, in which process and since when.
	Holder string
}

// Error implements error.
func (b *Busy) Error() string { return fmt.Sprintf("%v (%s)", record.ErrBusy, b.Holder) }

// Unwrap returns what the error is.
func (b *Busy) Unwrap() error { return record.ErrBusy }

// fetching are the commands that may hold the lock for long, and whose work can be done again.
var fetching = []string{"apply", "stage", "arrived"}

// EndFetch ends the command that holds the lock if that may fetch. One that has requested a switch ignores it. Refused
// is the error of Lock. It reports whether the lock will be free soon.
func (h *Host) EndFetch(refused error) bool {
	var b *Busy
	if !errors.As(refused, &b) {
		return false
	}
	verb, _, _ := strings.Cut(b.Holder, ",")
	if !slices.Contains(fetching, verb) {
		return false
	}
	h.Log.Warn("ending the command that holds the lock", zap.String("holder", b.Holder))
	if err := h.Machine.Disk.EndHolder(h.Path(lockFile)); err != nil {
		h.Log.Warn("cannot end the command that holds the lock", zap.Error(err))
		return false
	}
	return true
}

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
			return nil, &Busy{holder}
		}
		const retry = 200 * time.Millisecond // how soon a freed lock is noticed
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
