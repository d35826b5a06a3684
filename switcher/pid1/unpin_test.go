package pid1

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSealWaits seals a file in memory that is still mapped for writing, and unmapped a moment later.
func TestSealWaits(t *testing.T) {
	fd, err := unix.MemfdCreate("seal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "seal")
	defer file.Close()
	const size = 4096
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	held, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("a file that is mapped is sealed: %v", err)
	}
	time.AfterFunc(300*time.Millisecond, func() { unix.Munmap(held) })
	if err := seal(fd); err != nil {
		t.Error(err)
	}
	if _, err := file.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
		t.Errorf("a sealed file can be written: %v", err)
	}
}
