package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Unpin runs this very program again from a sealed copy in memory, with the same arguments: a process that outlives its
// root must not hold a file of it. It returns only in the copy, or with an error.
func Unpin() error {
	const name = "updatectl"
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot find the agent's own binary: %w", err)
	}
	if strings.HasPrefix(self, "/memfd:"+name) {
		return nil
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where every one can be executed
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("cannot make a file in memory: %w", err)
	}
	copied := os.NewFile(uintptr(fd), name)
	defer copied.Close()
	if err := fill(copied); err != nil {
		return fmt.Errorf("cannot copy the agent into memory: %w", err)
	}
	if err := seal(fd); err != nil {
		return fmt.Errorf("cannot seal the copy in memory: %w", err)
	}
	err = unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), os.Args, os.Environ())
	return fmt.Errorf("cannot run the copy in memory: %w", err)
}

// seal keeps a file in memory from being changed. The kernel says EBUSY while a page of it is held by somebody else, and
// on a busy machine that can be the kernel itself, which lets go of pages in batches (fcntl(2), F_SEAL_WRITE).
func seal(fd int) error {
	const (
		seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		tries = 50
		pause = 100 * time.Millisecond // the kernel waits about as long by itself, each time
	)
	var err error
	for range tries {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

func fill(to *os.File) error {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.Copy(to, src)
	return err
}
