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

// Unpin executes a sealed copy of this program in memory, with the same arguments: a process that outlives its root
// must not keep a file of it open. It returns nil when the copy calls it, otherwise only with an error.
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
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where every file in memory can be executed
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("cannot make a file in memory: %w", err)
	}
	copied := os.NewFile(uintptr(fd), name)
	defer copied.Close()
	if err := copySelf(copied); err != nil {
		return fmt.Errorf("cannot copy the agent into memory: %w", err)
	}
	if err := seal(fd); err != nil {
		return fmt.Errorf("cannot seal the copy in memory: %w", err)
	}
	err = unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), os.Args, os.Environ())
	return fmt.Errorf("cannot run the copy in memory: %w", err)
}

// seal makes a file in memory immutable. The kernel answers EBUSY while anybody holds a page of it (F_SEAL_WRITE in
// fcntl(2)). On a busy machine that can be the kernel itself, which releases pages in batches.
func seal(fd int) error {
	const (
		seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		tries = 50
		pause = 100 * time.Millisecond // the kernel itself waits about as long each time
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

// copySelf writes this program to a file.
func copySelf(to *os.File) error {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.Copy(to, src)
	return err
}
