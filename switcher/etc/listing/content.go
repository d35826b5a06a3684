package listing

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTooLarge is returned for a user database or an fstab that is larger than any real one.
var ErrTooLarge = errors.New("larger than such a file can be")

const (
	// plainSize is the size in bytes up to which the sum of a file is that of all its bytes. The sum of a larger file is
	// that of its blocks that are not zero: holes take no time.
	plainSize = 64 << 20
	// blockSize is how large a hole is at least.
	blockSize = 4 << 10
	chunkSize = 64 * blockSize
)

// errBound means that a file has more data than its reader allows.
var errBound = errors.New("more data than allowed")

// scan calls do with the data of a file up to a size, in order, and skips holes if the file is large. Each offset is a
// multiple of blockSize. With more than most bytes of data, the error is an errBound.
func scan(f *os.File, size, most int64, do func(at int64, data []byte) error) error {
	buf := make([]byte, min(chunkSize, max(size, 1)))
	for at, read := int64(0), int64(0); at < size; {
		if size > plainSize {
			next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
			switch {
			case errors.Is(err, unix.ENXIO): // the rest is a hole
				return nil
			case err == nil:
				at = max(at, next&^(blockSize-1))
			}
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), max(size-at, 0))], at)
		if read += int64(n); read > most {
			return errBound
		}
		if n > 0 {
			if err := do(at, buf[:n]); err != nil {
				return err
			}
		}
		if at += int64(n); errors.Is(err, io.EOF) || n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blocks calls do with each block of some data that is not zero.
func blocks(at int64, data []byte, do func(at int64, block []byte)) {
	var zero [blockSize]byte
	for len(data) > 0 {
		n := min(blockSize, len(data))
		if !bytes.Equal(data[:n], zero[:n]) {
			do(at, data[:n])
		}
		at, data = at+int64(n), data[n:]
	}
}

// transfer returns the sum of a file and how many bytes it read, and writes a copy that has holes where the file has
// zeros, unless to is nil. With more than most bytes of data, the error is an errBound; if there is such a bound, also
// with more than maxForeignSize bytes of data and holes.
func transfer(f, to *os.File, most int64) (sum string, read int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	h, size := sha256.New(), st.Size()
	if most < math.MaxInt64 && size > maxForeignSize {
		return "", 0, errBound
	}
	err = scan(f, size, most, func(at int64, data []byte) (err error) {
		read += int64(len(data))
		if size <= plainSize {
			h.Write(data)
		}
		blocks(at, data, func(at int64, block []byte) {
			if size > plainSize {
				_ = binary.Write(h, binary.LittleEndian, at)
				h.Write(block)
			}
			if to != nil && err == nil {
				_, err = to.WriteAt(block, at)
			}
		})
		return err
	})
	if err == nil && to != nil {
		err = to.Truncate(size)
	}
	sum = hex.EncodeToString(h.Sum(nil))
	if size > plainSize {
		sum = fmt.Sprintf("%d:%s", size, sum)
	}
	return sum, read, err
}

// ReadText returns the content of a file that is merged by content, nil when there is none or it is not an ordinary
// file. A file that is mounted there is read as well: that is what the host uses. Links in the directories above the
// file are followed if they do not lead out of dir.
func ReadText(dir, name string, limit int64) ([]byte, error) {
	f, err := openIn(dir, name, beneath)
	for _, none := range []error{fs.ErrNotExist, unix.ELOOP, unix.ENOTDIR, unix.EXDEV} {
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", f.Name(), err)
	}
	return append([]byte{}, content...), nil
}

// ReadStart returns the first bytes of an ordinary file that a tree lists.
func ReadStart(dir, name string, limit int64) ([]byte, error) {
	f, err := openIn(dir, name, strict)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func openIn(dir, name string, resolve uint64) (*os.File, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return openFile(d, name, resolve)
}
