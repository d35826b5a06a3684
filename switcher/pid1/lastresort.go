package pid1

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootKernel boots the kernel without asking anybody: what PID 1 does not do any more, reboot(2) does. It waits for the
// disks, but not for ever.
func BootKernel() error {
	const patience = 30 * time.Second // a disk that has not written by then will not
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(patience):
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("cannot boot the kernel: %w", err)
	}
	return nil
}

const panicFile = "/proc/sys/kernel/panic"

// RebootOnPanic has the kernel boot again when it panics, as it does when an init ends, unless the host has its own rule.
// The function that it returns takes that back.
func RebootOnPanic() (restore func()) { return rebootOnPanic(panicFile) }

func rebootOnPanic(file string) (restore func()) {
	const seconds = "10" // time to read it
	was, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(was)) != "0" || os.WriteFile(file, []byte(seconds), 0) != nil {
		return func() {}
	}
	return func() {
		// The new root may have set its own meanwhile.
		if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == seconds {
			_ = os.WriteFile(file, was, 0)
		}
	}
}
