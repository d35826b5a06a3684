package source

import (
	"context"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// blob streams content, checks it, and continues where a connection broke.
type blob struct {
	ctx      context.Context
	source   *Source
	d        ocispec.Descriptor
	manifest bool

	body   io.ReadCloser
	offset int64 // bytes read and hashed
	sum    hash.Hash
	broken int // connections lost so far, of this source
	err    error

	places *Source   // where to go on when source fails; nil: nowhere
	tried  []*Source // of these
	first  *Source   // that served the beginning
}

// newBlob opens content. That the source does not have it, or does not let us have it, shows here.
func (s *Source) newBlob(ctx context.Context, d ocispec.Descriptor, manifest bool) (*blob, error) {
	b, err := newBlob(ctx, s, d, manifest)
	if err != nil {
		return nil, err
	}
	return b, b.connect()
}

// newBlob checks what content is to be like, and does not open it yet.
func newBlob(ctx context.Context, s *Source, d ocispec.Descriptor, manifest bool) (*blob, error) {
	if err := checkDigest(d.Digest, manifest); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, fmt.Errorf("%w: size %d", verify.ErrMalformed, d.Size)
	}
	return &blob{ctx: ctx, source: s, d: d, manifest: manifest, sum: d.Digest.Algorithm().Hash()}, nil
}

// checkDigest refuses digests that are malformed or of an algorithm that does not count. Manifests go by sha256 only:
// signatures name it, and so do the roots on the disk.
func checkDigest(d digest.Digest, manifest bool) error {
	algorithm, _, _ := strings.Cut(d.String(), ":")
	switch {
	case algorithm == digest.SHA512.String() && manifest:
		return fmt.Errorf("%w: digest %.140q: a manifest must be referred to by sha256", verify.ErrMalformed, d)
	case algorithm != digest.SHA256.String() && algorithm != digest.SHA512.String():
		return fmt.Errorf("%w: digest %.140q is neither sha256 nor sha512", verify.ErrMalformed, d)
	case d.Validate() != nil:
		return fmt.Errorf("%w: digest %.140q is not a well-formed one", verify.ErrMalformed, d)
	}
	return nil
}

// connect opens a body that stands at the offset.
func (b *blob) connect() error {
	body, at, err := b.source.backend.open(b.ctx, b.d, b.manifest, b.offset)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, body, b.offset-at); err != nil {
		body.Close()
		return cut(err)
	}
	b.body = body
	return nil
}

// Read reads on, over several connections if need be.
func (b *blob) Read(p []byte) (int, error) {
	for b.err == nil {
		n, err := b.readBody(p)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if b.offset >= b.d.Size {
			b.err = b.finish()
			break
		}
		b.err = b.resume(cut(err))
	}
	return 0, b.err
}

// readBody reads at most to the size the content must have.
func (b *blob) readBody(p []byte) (int, error) {
	left := b.d.Size - b.offset
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := b.body.Read(p[:min(int64(len(p)), left)])
	b.sum.Write(p[:n])
	b.offset += int64(n)
	if n > 0 && b.first == nil {
		b.first = b.source
	}
	return n, err
}

// finish decides, at the end of the expected size, between EOF and an error.
func (b *blob) finish() error {
	if n, _ := io.ReadFull(b.body, make([]byte, 1)); n > 0 {
		return b.blame(b.source, fmt.Errorf("%w: %s is longer than the %d bytes it must have", verify.ErrDigest, b.d.Digest, b.d.Size))
	}
	if got := digest.NewDigest(b.d.Digest.Algorithm(), b.sum); got != b.d.Digest {
		return b.blame(b.first, fmt.Errorf("%w: %s came as %s", verify.ErrDigest, b.d.Digest, got))
	}
	return io.EOF
}

// resume connects again after err, and in the end elsewhere.
func (b *blob) resume(err error) error {
	b.body.Close()
	if err = b.reconnect(err); err != nil && b.ctx.Err() == nil {
		err = b.elsewhere(err)
	}
	return err
}

// reconnect connects again to where err came from. It gives up when that happened too often, when nobody waits any
// more, or when the source now answers that there is no such thing.
func (b *blob) reconnect(err error) error {
	for {
		if ctxErr := b.ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		if b.broken >= b.source.resumes {
			return fmt.Errorf("stopped after %d of %d bytes: %w", b.offset, b.d.Size, err)
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
		if !mayPass(err) {
			return err
		}
	}
}

// Close ends the transfer.
func (b *blob) Close() error { return b.body.Close() }
