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

// mediaTypeDocker is the layer type of Docker's schema 2; it is always gzip.
const mediaTypeDocker = "application/vnd.docker.image.rootfs.diff.tar.gzip"

const (
	// chunkSize is what goes between the stages at once: large enough to make the hand-over cheap, small enough to
	// stay in the second-level cache.
	chunkSize = 128 << 10
	// chunksAhead is how far a stage may run ahead of the next.
	chunksAhead = 8
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// Known tells whether mediaType is a layer this package can read.
func Known(mediaType string) bool {
	_, err := decompressor(mediaType)
	return err == nil
}

// decompressor returns how to open a layer of that type. zstd:chunked is plain zstd with its table of contents in
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
	return nil, fmt.Errorf("%w: of unknown type %q", ErrLayer, mediaType)
}

// AddBlob applies a layer as it is published. blob must report by its error that content does not have the
// descriptor's digest, before it reports EOF; that verdict wins over what a tampered stream looked like to the
// decompressor or to tar. The decompressed stream must have the digest diffID.
func (t *Tree) AddBlob(blob io.Reader, mediaType string, diffID digest.Digest, put Putter) error {
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
	err = t.Add(p, put)
	if err == nil {
		_, err = io.Copy(io.Discard, p) // what stands after the end marker counts for the digests
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
		return fmt.Errorf("%w: layer unpacks to %s, its configuration says %s", verify.ErrDigest, got, diffID)
	}
	return nil
}

// chunk is a piece of the decompressed stream; the last one carries the error.
type chunk struct {
	buf  *[chunkSize]byte
	n    int
	last error
}

// pipe decompresses in one goroutine and hashes in a second, so that these and the reader of the archive (which hashes
// and writes files) share the cores.
type pipe struct {
	out  chan chunk
	quit chan struct{}
	done sync.WaitGroup
	sum  hash.Hash // of everything read, complete after EOF

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

// decompress fills chunks until the stream ends, one way or the other.
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
			c.last = fmt.Errorf("%w: layer unpacks to more than %d bytes", ErrLimit, int64(maxStream))
		case total > freeStream && total > maxRatio*raw.read:
			c.last = fmt.Errorf("%w: layer unpacks to more than %d times its size", ErrLimit, maxRatio)
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

// fill reads until buf is full or the stream ends. Unlike io.ReadFull it leaves the error alone: an unexpected EOF of
// the decompressor is a cut stream, not a short last chunk.
func fill(in io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = in.Read(buf[n:])
		n += more
	}
	return n, err
}

// hash feeds the digest of the decompressed stream.
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

// send passes a chunk on unless nobody wants it any more.
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
