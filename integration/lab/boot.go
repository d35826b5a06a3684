package lab

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A BootStamp identifies a boot. The boot id changes with a full reboot only; the count grows with each soft reboot
// and restarts at 0 with a full one.
type BootStamp struct {
	BootID      string
	SoftReboots int
}

// ErrHostDown is returned when a host does not answer: it is booting, or has no D-Bus at the moment.
var ErrHostDown = errors.New("host does not answer")

// Stamp returns the stamp of the host's current boot, or [ErrHostDown].
func (h *Host) Stamp(ctx context.Context) (BootStamp, error) {
	// One command for both: a reboot between two commands would give a stamp of no boot.
	ctx, stop := context.WithTimeout(ctx, silence)
	defer stop()
	r := h.Sh(ctx, `cat /proc/sys/kernel/random/boot_id
busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
	SoftRebootsCount`)
	fields := strings.Fields(r.Stdout) // "ID", "u", "N"
	if r.Code != 0 || len(fields) != 3 {
		return BootStamp{}, fmt.Errorf("%w: %s", ErrHostDown, r)
	}
	count, err := strconv.Atoi(fields[2])
	if err != nil {
		return BootStamp{}, fmt.Errorf("cannot read SoftRebootsCount: %w", err)
	}
	return BootStamp{BootID: fields[0], SoftReboots: count}, nil
}

// AwaitBoot waits until the host has booted since the stamp was taken, by a soft or a full reboot, and has started all
// its units. It returns the new stamp.
func (h *Host) AwaitBoot(ctx context.Context, since BootStamp) (BootStamp, error) {
	limited, stop := context.WithTimeout(ctx, h.way.limit())
	defer stop()
	var now BootStamp
	err := poll(h.way.limit(), func() (bool, error) {
		if err := h.Alive(); err != nil {
			return false, err
		}
		var err error
		now, err = h.Stamp(limited)
		return err == nil && now != since, limited.Err()
	})
	if err != nil {
		return now, fmt.Errorf("cannot see host %s boot again: %w", h.Name, err)
	}
	if err := h.awaitUp(); err != nil {
		return now, fmt.Errorf("cannot see host %s come up again: %w", h.Name, err)
	}
	h.bootID = now.BootID
	return now, nil
}

// Patience returns how long a test may wait for something that takes the host a few seconds.
func (h *Host) Patience() time.Duration { return h.way.limit() / 5 }

// awaitUp waits until PID 1 has no job left. "degraded" counts as up: the test decides which units may fail.
func (h *Host) awaitUp() error {
	limited, stop := context.WithTimeout(context.Background(), h.way.limit())
	defer stop()
	var last string
	err := poll(h.way.limit(), func() (bool, error) {
		if err := h.Alive(); err != nil {
			return false, err
		}
		// An answer that is lost costs this question.
		short, stop := context.WithTimeout(limited, silence)
		defer stop()
		r := h.Run(short, "systemctl", "is-system-running")
		last = strings.TrimSpace(r.Stdout + r.Stderr)
		return last == "running" || last == "degraded", limited.Err()
	})
	if err != nil {
		return fmt.Errorf("%w (last answer: %s)", err, last)
	}
	return nil
}

// awaitAddress waits until a host that has booted has its address: in a machine, udev may find the link long after
// systemd has started everything else. A test decides what it means that a host never has it.
func (h *Host) awaitAddress() error {
	limited, stop := context.WithTimeout(context.Background(), h.Patience())
	defer stop()
	_ = poll(h.Patience(), func() (bool, error) {
		return h.Run(limited, "grep", "-qwF", h.Addr, "/proc/net/fib_trie").Code == 0, limited.Err()
	})
	return h.Alive()
}

// SoftReboot asks the host's logind for a soft reboot, and waits for it. It is for tests of the lab itself; the
// product asks logind on its own.
func (h *Host) SoftReboot(ctx context.Context) (BootStamp, error) {
	before, err := h.Stamp(ctx)
	if err != nil {
		return before, err
	}
	const softReboot = "4" // SD_LOGIND_SOFT_REBOOT
	r := h.Run(ctx, "busctl", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
		"org.freedesktop.login1.Manager", "RebootWithFlags", "t", softReboot)
	// The shutdown may kill the caller before it reads the answer: AwaitBoot shows whether it worked.
	if r.Code > 0 && r.Code < 128 {
		return before, fmt.Errorf("cannot ask for a soft reboot: %s", r)
	}
	return h.AwaitBoot(ctx, before)
}
