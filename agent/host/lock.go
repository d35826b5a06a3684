package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/record"
)

// Lock keeps every other updatectl out for as long as this one changes anything. The kernel drops the lock with the
// process, so a killed one leaves none behind. With wait, it waits for its turn.
func (h *Host) Lock(ctx context.Context, verb string, wait bool) (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("cannot %s: %w", verb, ErrPermission)
	}
	file := h.Path(lockFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || !wait {
			break
		}
		const turn = 200 * time.Millisecond // how soon a freed lock is noticed
		select {
		case <-time.After(turn):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := os.ReadFile(file)
		f.Close()
		return nil, fmt.Errorf("%w (%s)", record.ErrBusy, strings.TrimSpace(string(holder)))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	// Who holds it, for whoever is kept out.
	note := fmt.Sprintf("%s, process %d, since %s\n", verb, os.Getpid(), h.Now().Format(time.RFC3339))
	if err := errors.Join(f.Truncate(0), writeAt(f, note)); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	return func() { f.Close() }, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
