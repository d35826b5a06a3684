package pid1

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootKernel makes a full reboot with reboot(2), without PID 1, which may hang. It syncs the disks first, for at most
// 30 seconds. It returns only with an error.
func BootKernel() error {
	const patience = 30 * time.Second // a disk that has not written everything by then never will
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
		return fmt.Errorf("cannot reboot: %w", err)
	}
	return nil
}

const panicFile = "/proc/sys/kernel/panic"

// RebootOnPanic makes the kernel reboot ten seconds after a panic, for example because an init ended, unless the host
// has a setting of its own. restore undoes that.
func RebootOnPanic() (restore func()) { return rebootOnPanic(panicFile) }

func rebootOnPanic(file string) (restore func()) {
	const seconds = "10" // time to read the message
	was, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(was)) != "0" || os.WriteFile(file, []byte(seconds), 0) != nil {
		return func() {}
	}
	return func() {
		// The new root may have set another value meanwhile.
		if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == seconds {
			_ = os.WriteFile(file, was, 0)
		}
	}
}
