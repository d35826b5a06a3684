package layer

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// mediaTypeDocker is the layer type of Docker's schema 2, always compressed with gzip.
const mediaTypeDocker = "application/vnd.docker.image.rootfs.diff.tar.gzip"

const (
	// chunkSize is how many bytes one stage hands to the next: enough to make that cheap, and few enough to stay in
	// the second-level cache.
	chunkSize = 128 << 10
	// chunksAhead is how many chunks a stage may be ahead of the next.
	chunksAhead = 8
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// Known reports whether mediaType is that of a layer which this package can read.
func Known(mediaType string) bool {
	_, err := decompressor(mediaType)
	return err == nil
}

// decompressor returns a function that opens a layer of that type. zstd:chunked is zstd with a table of contents in
// skippable frames.
func decompressor(mediaType string) (func(io.Reader) (io.ReadCloser, error), error) {
	switch mediaType {
	case ocispec.MediaTypeImageLayer:
		return func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(r), nil }, nil
	case ocispec.MediaTypeImageLayerGzip, mediaTypeDocker:
		return func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }, nil
	case ocispec.MediaTypeImageLayerZstd:
		return func(r io.Reader) (io.ReadCloser, error) {
			d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
				zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return nil, err
			}
			return d.IOReadCloser(), nil
		}, nil
	}
	return nil, fmt.Errorf("%w: it has the unknown type %q", ErrLayer, mediaType)
}

// AddBlob applies a layer as it is published. Instead of EOF, blob must return an error when its content does not have
// the digest of the descriptor: that error takes precedence over what the decompressor or tar say about a tampered
// stream. The decompressed stream must have the digest diffID. What note saw is worth nothing after an error.
func (t *Tree) AddBlob(blob io.Reader, mediaType string, diffID digest.Digest, put Putter, note Noter) error {
	open, err := decompressor(mediaType)
	if err != nil {
		return err
	}
	algorithm := digest.SHA256
	if strings.HasPrefix(diffID.String(), digest.SHA512.String()+":") {
		algorithm = digest.SHA512
	}
	raw := &fault{r: blob}
	p := newPipe(raw, open, algorithm)
	err = t.addNoted(p, put, note)
	if err == nil {
		_, err = io.Copy(io.Discard, p) // the digests cover what follows the end of the archive
	}
	p.stop()
	if err != nil && !errors.Is(err, ErrLayer) {
		return err
	}
	if _, drained := io.Copy(io.Discard, raw); drained != nil {
		return drained
	}
	if err != nil {
		return err
	}
	if got := digest.NewDigest(algorithm, p.sum); got != diffID {
		return fmt.Errorf("%w: the layer unpacks to %s, and the configuration lists %s", verify.ErrDigest, got, diffID)
	}
	return nil
}

// chunk is a piece of the decompressed stream. The last one has the error.
type chunk struct {
	buf  *[chunkSize]byte
	n    int
	last error
}

// pipe decompresses in one goroutine and hashes in another, so that both run in parallel with the reader of the
// archive, which hashes and writes files.
type pipe struct {
	out  chan chunk
	quit chan struct{}
	done sync.WaitGroup
	sum  hash.Hash // of the decompressed stream, complete after EOF

	current chunk
	off     int
}

func newPipe(raw *fault, open func(io.Reader) (io.ReadCloser, error), algorithm digest.Algorithm) *pipe {
	p := &pipe{
		out:  make(chan chunk, chunksAhead),
		quit: make(chan struct{}),
		sum:  algorithm.Hash(),
	}
	decompressed := make(chan chunk, chunksAhead)
	p.done.Go(func() { p.decompress(raw, open, decompressed) })
	p.done.Go(func() { p.hash(decompressed) })
	return p
}

// decompress sends chunks until the stream ends or fails.
func (p *pipe) decompress(raw *fault, open func(io.Reader) (io.ReadCloser, error), out chan<- chunk) {
	defer close(out)
	in, err := open(raw)
	if err != nil {
		p.send(out, chunk{last: raw.blame(fmt.Errorf("%w: %v", ErrLayer, err))})
		return
	}
	defer in.Close()
	for total := int64(0); ; {
		c := chunk{buf: chunks.Get().(*[chunkSize]byte)}
		c.n, err = fill(in, c.buf[:])
		switch total += int64(c.n); {
		case total > maxStream:
			c.last = fmt.Errorf("%w: it unpacks to more than %d bytes", ErrLimit, int64(maxStream))
		case total > freeStream && total > maxRatio*raw.read:
			c.last = fmt.Errorf("%w: it unpacks to more than %d times its size", ErrLimit, maxRatio)
		case err == io.EOF:
			c.last = io.EOF
		case err != nil:
			c.last = raw.blame(fmt.Errorf("%w: %v", ErrLayer, err))
		}
		if !p.send(out, c) || c.last != nil {
			return
		}
	}
}

// fill reads until buf is full or the stream ends. Unlike io.ReadFull, it returns the error of the stream:
// io.ErrUnexpectedEOF means that the decompressor found the stream cut short, not that the last chunk is short.
func fill(in io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = in.Read(buf[n:])
		n += more
	}
	return n, err
}

// hash computes the digest of the decompressed stream.
func (p *pipe) hash(in <-chan chunk) {
	defer close(p.out)
	for c := range in {
		if c.n > 0 {
			p.sum.Write(c.buf[:c.n])
		}
		if !p.send(p.out, c) {
			return
		}
	}
}

// send passes a chunk on, and returns false after stop.
func (p *pipe) send(out chan<- chunk, c chunk) bool {
	select {
	case out <- c:
		return true
	case <-p.quit:
		return false
	}
}

// Read returns the decompressed stream.
func (p *pipe) Read(buf []byte) (int, error) {
	for p.off == p.current.n {
		if p.current.last != nil {
			return 0, p.current.last
		}
		if p.current.buf != nil {
			chunks.Put(p.current.buf)
		}
		p.current, p.off = <-p.out, 0
	}
	n := copy(buf, p.current.buf[p.off:p.current.n])
	p.off += n
	return n, nil
}

// stop ends both goroutines and waits for them.
func (p *pipe) stop() {
	close(p.quit)
	p.done.Wait()
}
