package durable

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// EndHolder implements [Disk]. The kernel says who holds the lock, and a descriptor of the process makes sure that the
// signal does not reach another one.
func (OS) EndHolder(name string) error {
	pid, err := lockHolder(name)
	if err != nil || pid == 0 {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	defer unix.Close(process)
	if again, err := lockHolder(name); err != nil || again != pid {
		return err
	}
	if err := unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot end process %d: %w", pid, err)
	}
	return nil
}

// lockHolder returns the process that holds a lock of flock(2), 0 without one. See proc_locks(5).
func lockHolder(name string) (pid int, err error) {
	st, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0, err
	}
	defer locks.Close()
	sys := st.Sys().(*syscall.Stat_t)
	wanted := fmt.Sprintf("%02x:%02x:%d", unix.Major(sys.Dev), unix.Minor(sys.Dev), sys.Ino)
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		var number, kind, how, access, file string
		_, err := fmt.Sscan(lines.Text(), &number, &kind, &how, &access, &pid, &file)
		if err == nil && kind == "FLOCK" && access == "WRITE" && file == wanted {
			return pid, nil
		}
	}
	return 0, nil
}
