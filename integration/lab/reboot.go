package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// FullReboot runs a command in the host that reboots it. Without a loader, the lab boots it again in place of its
// firmware: a full reboot ends the container or the machine, a soft one does not. It returns the stamp of the new boot,
// which has an empty /run.
func (h *Host) FullReboot(ctx context.Context, command ...string) (BootStamp, error) {
	if err := h.noteBoot(); err != nil {
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: %w", h.Name, err)
	}
	if r := h.Run(ctx, command...); r.Code > 0 && r.Code < 128 {
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: %s", h.Name, r)
	}
	return h.AwaitReboot(ctx, h.way.limit())
}

// AwaitReboot waits until the host reboots, within a limit, and boots it again. A machine that a loader starts boots
// again on its own, and meanwhile may start kernels that panic. A kernel that panics and does not reboot is an error.
func (h *Host) AwaitReboot(ctx context.Context, limit time.Duration) (BootStamp, error) {
	if h.loads() && h.running() {
		return h.awaitLoader(ctx, limit)
	}
	select {
	case <-h.ended:
	case <-ctx.Done():
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: %w", h.Name, ctx.Err())
	case <-time.After(limit):
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: %w", h.Name, errStaysUp)
	}
	if h.panics.stayed() {
		return BootStamp{}, fmt.Errorf("cannot reboot host %s: it stays as it is: %w", h.Name, h.Alive())
	}
	if err := h.boot(); err != nil {
		return BootStamp{}, err
	}
	return h.Stamp(ctx)
}

var errStaysUp = errors.New("the host still runs: that was no full reboot")
