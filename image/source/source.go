package source

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"

	"github.com/updatectl/updatectl/verify"
)

var (
	// ErrReference is a reference that is not in one of the forms Open reads.
	ErrReference = errors.New("bad image reference")
	// ErrSource is the parent of what can go wrong while reading a source.
	ErrSource = errors.New("source failed")
	// ErrNotFound means the source answered and has no such tag or content.
	ErrNotFound = sourceError("not found")
	// ErrUnreachable means the source did not answer, not properly, or not to the end.
	ErrUnreachable = sourceError("not reachable")
	// ErrAuth means the source refused who we are, or wants to know it.
	ErrAuth = sourceError("access denied")
)

// kind is an error of a class whose name need not be in the text.
type kind struct{ text string }

func sourceError(text string) error { return &kind{text} }
func (k *kind) Error() string       { return k.text }
func (k *kind) Unwrap() error       { return ErrSource }

const (
	// stallTime is how long a body may stay without a byte. Registries that
	// fetch from cold storage take up to half a minute for the first one.
	stallTime = 60 * time.Second
	// resumes is how often one blob is continued after its connection broke.
	resumes = 5
	// resumePause is the pause before the first of these; it doubles.
	resumePause = 500 * time.Millisecond
)

// layoutPrefix starts a reference to an OCI layout directory.
const layoutPrefix = "oci:"

// Options are the caller's circumstances.
type Options struct {
	PlainHTTP []string       // hosts (with port) to talk to without TLS
	UserAgent string         // what to call ourselves
	RootCAs   *x509.CertPool // nil: those of Authorities
	Stall     time.Duration  // how long a body may stay silent; 0: one minute
}

// Source is one published image, or a place where one will be.
type Source struct {
	name    string
	backend backend
	resumes int
	pause   time.Duration
	budget  budget
}

// backend is where the bytes come from. Its errors are of this package's kinds.
type backend interface {
	// resolve finds what the reference, or another tag beside it, stands for.
	resolve(ctx context.Context, tag string) (ocispec.Descriptor, error)
	// open opens content at an offset. A body that starts earlier says so.
	open(ctx context.Context, d ocispec.Descriptor, manifest bool, offset int64) (body io.ReadCloser, at int64, err error)
	// referrers lists what may refer to d; there may be strangers among them.
	referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error)
}

// Open reads a reference: "host/repository:tag", "host/repository@sha256:…",
// "oci:DIR", "oci:DIR:tag" or "oci:DIR@sha256:…". It does not touch the source.
func Open(reference string, o Options) (*Source, error) {
	if o.Stall == 0 {
		o.Stall = stallTime
	}
	if rest, ok := strings.CutPrefix(reference, layoutPrefix); ok {
		l, err := newLayout(rest)
		if err != nil {
			return nil, err
		}
		return newSource(reference, l), nil
	}
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %v", ErrReference, reference, err)
	}
	if ref.Reference == "" {
		return nil, fmt.Errorf("%w %q: it names neither a tag nor a digest", ErrReference, reference)
	}
	r, err := newRemote(ref, o)
	if err != nil {
		return nil, err
	}
	s := newSource(reference, r)
	s.resumes, s.pause = resumes, resumePause
	return s, nil
}

func newSource(reference string, b backend) *Source {
	s := &Source{name: reference, backend: b}
	s.budget.left.Store(int64(metadataTime))
	return s
}

// WithTag returns the reference of another tag at the same place, "" if that cannot be a tag.
func WithTag(reference, tag string) string {
	if !validTag.MatchString(tag) {
		return ""
	}
	place, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(place, ':'); i > strings.LastIndexByte(place, '/') && i >= len(layoutPrefix) {
		place = place[:i]
	}
	return place + ":" + tag
}

// String returns the reference the source was opened with.
func (s *Source) String() string { return s.name }

// Resolve returns what the reference stands for now: a manifest or an index.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	ctx, end := s.budget.spend(ctx)
	d, err := s.backend.resolve(ctx, "")
	if err = end(err); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot resolve %s: %w", s, err)
	}
	return d, nil
}

// Manifest returns a manifest or an index whole.
func (s *Source) Manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	ctx, end := s.budget.spend(ctx)
	data, err := s.read(ctx, d, true, verify.MaxManifest)
	if err = end(err); err != nil {
		return nil, fmt.Errorf("cannot fetch manifest %s of %s: %w", d.Digest, s, err)
	}
	return data, nil
}

// Config returns the configuration of an image whole.
func (s *Source) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	ctx, end := s.budget.spend(ctx)
	data, err := s.read(ctx, d, false, verify.MaxManifest)
	if err = end(err); err != nil {
		return nil, fmt.Errorf("cannot fetch configuration %s of %s: %w", d.Digest, s, err)
	}
	return data, nil
}

// Blob streams a blob. EOF comes only after size and digest were right.
func (s *Source) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, err := s.newBlob(ctx, d, false)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch blob %s of %s: %w", d.Digest, s, err)
	}
	return b, nil
}

// read returns content of at most limit bytes.
func (s *Source) read(ctx context.Context, d ocispec.Descriptor, manifest bool, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are read", verify.ErrMalformed, d.Size, limit)
	}
	b, err := s.newBlob(ctx, d, manifest)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}
