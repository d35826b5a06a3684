package livepatch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// insert loads a module from memory, by a file that exists nowhere: what was verified is what is loaded.
func insert(module []byte) (err error) {
	fd, err := unix.MemfdCreate("livepatch", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("cannot hand over the module: %w", err)
	}
	f := os.NewFile(uintptr(fd), "livepatch")
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(module); err != nil {
		return fmt.Errorf("cannot hand over the module: %w", err)
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("cannot hand over the module: %w", err)
	}
	// The kernel does not load what somebody has open for writing (ETXTBSY).
	readable, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return fmt.Errorf("cannot hand over the module: %w", err)
	}
	defer func() { err = errors.Join(err, readable.Close()) }()
	return unix.FinitModule(int(readable.Fd()), "", 0)
}

// remove unloads a module, at once or not at all.
func remove(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) }
