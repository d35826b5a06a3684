package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// FullReboot runs a command in the host that reboots it, and boots it again as its firmware would: a full reboot ends
// the container, a soft one does not. It returns the stamp of the new boot, in which nothing of the old /run is left.
func (h *Host) FullReboot(ctx context.Context, command ...string) (BootStamp, error) {
	if r := h.Run(ctx, command...); r.Code > 0 && r.Code < 128 {
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: %s", h.Name, r)
	}
	select {
	case <-h.ended:
	case <-time.After(bootLimit):
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: %w", h.Name, errStaysUp)
	}
	// The old cgroup has others below it by now, and a process cannot be put into such a one.
	h.cgroup += "-again"
	if err := os.Mkdir(h.cgroup, 0o755); err != nil {
		return BootStamp{}, fmt.Errorf("cannot start host %s: %w", h.Name, err)
	}
	h.ended = make(chan struct{})
	for _, step := range []func() error{h.start, h.connect, h.awaitUp} {
		if err := step(); err != nil {
			return BootStamp{}, fmt.Errorf("cannot boot host %s: %w\n%s", h.Name, err, h.Console())
		}
	}
	return h.Stamp(ctx)
}

var errStaysUp = errors.New("the container has not ended: that was no full reboot")
