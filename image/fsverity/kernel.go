package fsverity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnsupported means that the file system, or the kernel, has no fs-verity.
	ErrUnsupported = errors.New("the file system has no fs-verity")
	// ErrNone means that the kernel does not verify a file: it has no fs-verity, or one with other parameters.
	ErrNone = errors.New("the file has no fs-verity")
)

// Enable makes the kernel verify each read of a file, which can never be changed again. Nothing may have the file open
// for writing. It is no error if the file has fs-verity already. The error is an ErrUnsupported where there is none.
func Enable(f *os.File) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: blockSize}
	switch err := control(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg)); {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case isUnsupported(err), errors.Is(err, unix.EINVAL): // before Linux 6.3, ext4 takes blocks of a page only
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	default:
		return fmt.Errorf("cannot enable fs-verity: %w", err)
	}
}

// Measure returns the digest that the kernel verifies a file with, without reading the file. The error is an ErrNone if
// there is none.
func Measure(f *os.File) (Digest, error) {
	const header = 4 // sizeof(struct fsverity_digest)
	var arg [header + 64]byte
	binary.NativeEndian.PutUint16(arg[2:], uint16(len(arg)-header))
	if err := control(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); err != nil {
		if isUnsupported(err) || errors.Is(err, unix.ENODATA) {
			return Digest{}, ErrNone
		}
		return Digest{}, fmt.Errorf("cannot measure it: %w", err)
	}
	algorithm, size := binary.NativeEndian.Uint16(arg[:]), binary.NativeEndian.Uint16(arg[2:])
	if algorithm != unix.FS_VERITY_HASH_ALG_SHA256 || size != hashSize {
		return Digest{}, ErrNone
	}
	return Digest(arg[header : header+hashSize]), nil
}

// Compute returns the digest of a file's content, which it reads from the beginning.
func Compute(f io.ReaderAt) (Digest, error) {
	const large = 1 << 62 // more than any file has
	var h Hasher
	if _, err := io.CopyBuffer(&h, io.NewSectionReader(f, 0, large), make([]byte, 256<<10)); err != nil {
		return Digest{}, err
	}
	return h.Digest(), nil
}

// isUnsupported reports whether an error says that a file system or a kernel has no fs-verity.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP)
}

// control is ioctl(2). It repeats a call that a signal interrupts: enabling fs-verity of a large file takes time.
func control(f *os.File, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
