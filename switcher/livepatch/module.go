package livepatch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// insert loads a module from a sealed file in memory: nobody can change what was verified.
func insert(module []byte) (err error) {
	fd, err := unix.MemfdCreate("livepatch", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("cannot pass the module to the kernel: %w", err)
	}
	f := os.NewFile(uintptr(fd), "livepatch")
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(module); err != nil {
		return fmt.Errorf("cannot pass the module to the kernel: %w", err)
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("cannot pass the module to the kernel: %w", err)
	}
	// The kernel does not load a file that is open for writing (ETXTBSY).
	readable, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return fmt.Errorf("cannot pass the module to the kernel: %w", err)
	}
	defer func() { err = errors.Join(err, readable.Close()) }()
	return unix.FinitModule(int(readable.Fd()), "", 0)
}

// remove unloads a module. It does not wait: a module that is in use is an error.
func remove(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) }
