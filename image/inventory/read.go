package inventory

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/layer"
)

// ErrUnusable means that a file is not the inventory of that layer, or not an intact one.
var ErrUnusable = errors.New("the inventory of the layer cannot be used")

const (
	// maxText bounds a name, a link target or an attribute, in bytes. archive/tar accepts no longer ones.
	maxText = 1 << 20
	// maxXattrs bounds the attributes of an entry, which archive/tar reads from a record of at most 1 MiB.
	maxXattrs = 1 << 16
	// maxEntries bounds all entries unpacked, in bytes. Those of a server root with 38 900 entries have 5 MB.
	maxEntries = 1 << 30
)

// File is an inventory that is open for reading, whose checksum is right.
type File struct {
	f    *os.File
	head int64
	end  int64 // where the checksum begins
}

// Open opens the inventory of a layer, and reads it once to check it. The error is an ErrUnusable.
func Open(name string, l Layer) (*File, error) {
	f, err := check(name, l.head())
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnusable, name, err)
	}
	return f, nil
}

// Check returns an ErrUnusable if a file is not an intact inventory of any layer. One of another version counts as
// intact if its checksum is right.
func Check(name string) error {
	f, err := check(name, "")
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnusable, name, err)
	}
	return f.Close()
}

// check opens a file that begins with a head and ends with its checksum.
func check(name, head string) (*File, error) {
	f, err := durable.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	end, err := checkSum(f, head)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f, int64(len(head)), end}, nil
}

// checkSum returns where the checksum of a file begins, which is right.
func checkSum(f *os.File, head string) (end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end = st.Size() - sha256.Size
	switch {
	case st.Size() > maxFile:
		return 0, fmt.Errorf("it has %d bytes, more than %d", st.Size(), maxFile)
	case end < int64(len(head)):
		return 0, errors.New("it is cut short")
	}
	begin := make([]byte, len(head))
	if _, err := f.ReadAt(begin, 0); err != nil {
		return 0, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, end)); err != nil {
		return 0, err
	}
	want := make([]byte, sha256.Size)
	if _, err := f.ReadAt(want, end); err != nil {
		return 0, err
	}
	switch {
	case !bytes.Equal(sum.Sum(nil), want):
		return 0, errors.New("its checksum is wrong")
	case string(begin) != head:
		return 0, errors.New("it is of another layer or of another version of updatectl")
	}
	return end, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Entries returns the entries of the layer in their order. The last error is an ErrUnusable if they end too early or
// are malformed.
func (f *File) Entries() iter.Seq2[layer.Noted, error] {
	return func(yield func(layer.Noted, error) bool) {
		zip, err := zstd.NewReader(io.NewSectionReader(f.f, f.head, f.end-f.head), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			yield(layer.Noted{}, fmt.Errorf("%w: %w", ErrUnusable, err))
			return
		}
		defer zip.Close()
		r := reader{r: bufio.NewReaderSize(io.LimitReader(zip, maxEntries), 64<<10)}
		for {
			e, more := r.entry()
			if r.err != nil {
				yield(layer.Noted{}, fmt.Errorf("%w: %s: %w", ErrUnusable, f.f.Name(), r.err))
				return
			}
			if !more || !yield(e, nil) {
				return
			}
		}
	}
}

// reader reads entries. After an error it reads nothing.
type reader struct {
	r   *bufio.Reader
	buf []byte
	hdr tar.Header
	err error
}

// entry returns the next entry, or false at the end.
func (r *reader) entry() (e layer.Noted, more bool) {
	kind := r.byte()
	switch {
	case kind == kindEnd:
		if _, err := r.r.ReadByte(); r.err == nil && err != io.EOF {
			r.fail(errors.New("something follows its end"))
		}
		return e, false
	case kind > kindContent:
		r.fail(fmt.Errorf("it has an entry of the unknown kind %d", kind))
		return e, false
	}
	r.hdr = tar.Header{Typeflag: r.byte(), Name: r.text(), Linkname: r.text()}
	r.hdr.Mode, r.hdr.Uid, r.hdr.Gid = r.number(), int(r.number()), int(r.number())
	r.hdr.ModTime = time.Unix(r.number(), r.number())
	r.hdr.Size, r.hdr.Devmajor, r.hdr.Devminor = r.number(), r.number(), r.number()
	r.hdr.PAXRecords = r.xattrs()
	e.Header = &r.hdr
	if kind == kindContent {
		r.read(e.Object[:])
	}
	if r.hdr.Size < 0 {
		r.fail(fmt.Errorf("%q has %d bytes", r.hdr.Name, r.hdr.Size))
	}
	return e, r.err == nil
}

func (r *reader) fail(err error) {
	if r.err == nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		r.err = err
	}
}

func (r *reader) read(p []byte) {
	if r.err == nil {
		if _, err := io.ReadFull(r.r, p); err != nil {
			r.fail(err)
		}
	}
}

func (r *reader) byte() byte {
	if r.err != nil {
		return 0
	}
	b, err := r.r.ReadByte()
	if err != nil {
		r.fail(err)
	}
	return b
}

func (r *reader) number() int64 {
	if r.err != nil {
		return 0
	}
	n, err := binary.ReadVarint(r.r)
	if err != nil {
		r.fail(err)
	}
	return n
}

// count reads a number of at most limit.
func (r *reader) count(limit uint64) int {
	if r.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(r.r)
	if err == nil && n > limit {
		err = fmt.Errorf("it has a length of %d, more than %d", n, limit)
	}
	if err != nil { // the number may be anything
		r.fail(err)
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count(maxText)
	if n == 0 {
		return ""
	}
	if n > len(r.buf) {
		r.buf = make([]byte, n)
	}
	r.read(r.buf[:n])
	return string(r.buf[:n])
}

func (r *reader) xattrs() map[string]string {
	n := r.count(maxXattrs)
	if n == 0 {
		return nil
	}
	xattrs := map[string]string{}
	for range n {
		record := r.text()
		xattrs[record] = r.text()
		if r.err != nil {
			return nil
		}
	}
	return xattrs
}
