package source

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/registry"
	"github.com/updatectl/updatectl/verify"
)

// blob streams content and checks it. After a lost connection it continues at the same offset.
type blob struct {
	ctx      context.Context
	source   *Source
	d        ocispec.Descriptor
	manifest bool

	body   io.ReadCloser
	offset int64 // bytes read and hashed
	sum    hash.Hash
	broken int   // number of connections to source that were lost since the last progress
	mark   int64 // progress counts from this offset, which grows by what is sent again
	lost   int   // number of connections to source that were lost since much has come
	much   int64 // the offset from which that counts
	err    error

	part   *Part // what is kept of the blob; nil for nothing
	meter  registry.Meter
	places *Source   // has the places to continue at when source fails; nil if there are none
	tried  []*Source // those that failed
	mixed  bool      // whether a place was left for another one
	left   []*Source // those that were left, or did not answer when another one was left: they are asked last
	first  *Source   // served the beginning
}

// newBlob opens content. The error shows whether the source lacks it or refuses access.
func (s *Source) newBlob(ctx context.Context, d ocispec.Descriptor, manifest bool) (*blob, error) {
	b, err := newBlob(ctx, s, d, manifest)
	if err != nil {
		return nil, err
	}
	return b, b.connect()
}

// newBlob checks the descriptor of content, which it does not open yet.
func newBlob(ctx context.Context, s *Source, d ocispec.Descriptor, manifest bool) (*blob, error) {
	if err := checkDigest(d.Digest, manifest); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, fmt.Errorf("%w: the size is %d", verify.ErrMalformed, d.Size)
	}
	return &blob{ctx: ctx, source: s, d: d, manifest: manifest, sum: d.Digest.Algorithm().Hash()}, nil
}

// checkDigest refuses digests that are malformed or of an unsupported algorithm. A manifest must have a sha256 digest,
// because signatures and the roots on disk use it.
func checkDigest(d digest.Digest, manifest bool) error {
	algorithm, _, _ := strings.Cut(d.String(), ":")
	switch {
	case algorithm == digest.SHA512.String() && manifest:
		return fmt.Errorf("%w: the digest %.140q of a manifest is not sha256", verify.ErrMalformed, d)
	case algorithm != digest.SHA256.String() && algorithm != digest.SHA512.String():
		return fmt.Errorf("%w: the digest %.140q is neither sha256 nor sha512", verify.ErrMalformed, d)
	case d.Validate() != nil:
		return fmt.Errorf("%w: the digest %.140q is not well-formed", verify.ErrMalformed, d)
	}
	return nil
}

// Part keeps the beginning of a blob, for a run that goes on where this one stops.
type Part struct {
	file io.ReadWriter // after what was read, everything else is written
	used int64         // bytes that were read from it
	done bool          // it has been read
}

// NewPart returns a part that is read and then written.
func NewPart(file io.ReadWriter) *Part { return &Part{file: file} }

// ErrPart means that a blob whose beginning was kept has other content. The part is wrong, or a place that was asked.
var ErrPart = errors.New("the beginning of the blob was kept by an earlier run")

// readPart reads what is kept. After that, it connects for the rest.
func (b *blob) readPart(p []byte) (int, error) {
	if err := b.ended(); err != nil { // reading a file does not ask
		return 0, err
	}
	n, err := b.part.file.Read(p[:min(int64(len(p)), b.d.Size-b.offset)])
	b.sum.Write(p[:n])
	b.offset, b.part.used = b.offset+int64(n), b.part.used+int64(n)
	if n > 0 {
		return n, nil
	}
	b.part.done = true
	if err != io.EOF && b.offset < b.d.Size { // what cannot be read is not written to either
		b.part = &Part{used: b.part.used, done: true}
	}
	b.begin()
	if b.offset >= b.d.Size {
		return 0, nil
	}
	if err = b.connect(); err != nil && b.ended() == nil {
		err = b.continueElsewhere(err)
	}
	if err != nil {
		err = fmt.Errorf("cannot fetch the blob %s of %s: %w", b.d.Digest, b.source, err)
	}
	return 0, err
}

// keep adds to what is kept. A part that cannot be written ends there, and is right as far as it goes.
func (b *blob) keep(p []byte) {
	if b.part == nil || b.part.file == nil {
		return
	}
	if _, err := b.part.file.Write(p); err != nil {
		b.part.file = nil
	}
}

// connect opens a body at the current offset.
func (b *blob) connect() error {
	body, at, err := b.source.backend.Open(b.ctx, b.d, b.manifest, b.offset)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, body, b.offset-at); err != nil {
		body.Close()
		return cutShort(err)
	}
	b.mark += b.offset - at
	b.body = body
	return nil
}

// Read reads content, over several connections if necessary.
func (b *blob) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.part != nil && !b.part.done {
			var n int
			if n, b.err = b.readPart(p); n > 0 {
				return n, nil
			}
			continue
		}
		n, err := b.readBody(p)
		if n > 0 {
			b.keep(p[:n])
			return n, nil
		}
		if err == nil {
			continue
		}
		if b.offset >= b.d.Size {
			b.err = b.finish()
			break
		}
		b.err = b.resume(cutShort(err))
	}
	return 0, b.err
}

// readBody reads no further than the expected size.
func (b *blob) readBody(p []byte) (int, error) {
	left := b.d.Size - b.offset
	if left <= 0 {
		return 0, io.EOF
	}
	if err := b.ended(); err != nil { // reading a file does not ask
		return 0, err
	}
	start := time.Now()
	n, err := b.body.Read(p[:min(int64(len(p)), left)])
	b.sum.Write(p[:n])
	b.offset += int64(n)
	if n > 0 && b.first == nil {
		b.first = b.source
	}
	if b.places != nil && b.meter.Slow(n, time.Since(start), b.source.stall, mirrorRate) && err == nil {
		b.leave(fmt.Errorf("%w: less than %d KiB arrive per second", registry.ErrSlow, mirrorRate>>10))
	}
	if err == nil {
		err = pace(b.ctx, b.source.limit, n)
	}
	return n, err
}

// ended returns why nothing more is asked for: the context or the time has ended.
func (b *blob) ended() error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if until := b.source.until; !until.IsZero() && time.Now().After(until) {
		return errLate
	}
	return nil
}

// errLate means that the layers were not there within [Options.Total].
var errLate = fmt.Errorf("%w: fetching took too long in total", failure.ErrUnreachable)

// mirrorRate is the rate, in bytes per second over a stall time, below which another place is tried.
const mirrorRate = 64 << 10

// leave continues at another place, if one answers, because this one serves badly. It returns whether it does. Each
// place is tried once: where all serve badly, the last one goes on.
func (b *blob) leave(why error) bool {
	if isSteady(b.places) {
		return false
	}
	for next := b.nextPlace(); next != nil && b.offset < b.d.Size && b.ended() == nil; next = b.nextPlace() {
		now := *b
		now.source = next
		now.begin()
		if err := now.connect(); err != nil {
			b.left = append(b.left, next)
			if b.ended() == nil {
				b.places.skipPlace(next, err, true)
			}
			continue
		}
		b.body.Close()
		b.places.skipPlace(b.source, fmt.Errorf("%w: %w", failure.ErrUnreachable, why), true)
		now.left, now.mixed = append(b.left, b.source), true
		*b = now
		return true
	}
	return false
}

// begin counts from here what the source of the blob does.
func (b *blob) begin() { b.broken, b.mark, b.lost, b.much = 0, b.offset, 0, b.offset }

// finish checks the content at its expected end, and returns io.EOF or an error.
func (b *blob) finish() error {
	got := digest.NewDigest(b.d.Digest.Algorithm(), b.sum)
	if got != b.d.Digest && b.part != nil && b.part.used > 0 {
		return fmt.Errorf("%w: %w: %s has the digest %s", verify.ErrDigest, ErrPart, b.d.Digest, got)
	}
	if b.body != nil { // not all of it was kept
		if n, _ := io.ReadFull(b.body, make([]byte, 1)); n > 0 {
			return b.blamePlace(b.source,
				fmt.Errorf("%w: %s is longer than %d bytes", verify.ErrDigest, b.d.Digest, b.d.Size))
		}
	}
	if got != b.d.Digest {
		return b.blamePlace(b.first, fmt.Errorf("%w: %s has the digest %s", verify.ErrDigest, b.d.Digest, got))
	}
	return io.EOF
}

// resume connects again after err, at last to another place.
func (b *blob) resume(err error) error {
	b.body.Close()
	if err = b.reconnect(err); err != nil && b.ended() == nil {
		err = b.continueElsewhere(err)
	}
	return err
}

// progress is how many bytes must have come since the attempts were last counted from zero. A server that stalls after
// fewer would stay below [registry.DefaultRate]. What a server without ranges sends again is no progress.
const progress = 64 << 10

// muchProgress is how many bytes must have come for lost connections to be no reason to ask another place.
const muchProgress = 16 << 20

// reconnect connects again to the source that err comes from, or to another one if this one loses many connections. It
// gives up after too many attempts without progress, when the context or the time ends, or when the source answers that
// it does not have the content.
func (b *blob) reconnect(err error) error {
	if ended := b.ended(); ended != nil {
		return ended
	}
	if b.offset-b.mark >= progress {
		b.broken, b.mark = 0, b.offset
	}
	if b.offset-b.much >= muchProgress {
		b.lost, b.much = 0, b.offset
	}
	b.lost++
	if b.places != nil && b.lost > b.source.resumes && b.leave(fmt.Errorf("it lost %d connections: %w", b.lost, err)) {
		return nil
	}
	for {
		if ended := b.ended(); ended != nil {
			return ended
		}
		if b.broken >= b.source.resumes {
			return fmt.Errorf("the transfer stopped after %d of %d bytes: %w", b.offset, b.d.Size, err)
		}
		wait := b.source.pause << b.broken
		b.broken++
		select {
		case <-time.After(wait):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
		if err = b.connect(); err == nil {
			return nil
		}
		if !mayRecover(err) {
			return err
		}
	}
}

// Close ends the transfer.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}

// cutShort returns the error for a body that ended too early.
func cutShort(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return registry.Explain(err)
}

// mayRecover reports whether another attempt can help.
func mayRecover(err error) bool { return errors.Is(err, failure.ErrUnreachable) }
