package source

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"github.com/updatectl/updatectl/verify"
)

var (
	// ErrReference is a reference that is not in one of the forms Open reads.
	ErrReference = errors.New("bad image reference")
	// ErrSource is the parent of what can go wrong while reading a source.
	ErrSource = errors.New("source failed")
	// ErrNotFound means the source answered and has no such tag or content.
	ErrNotFound = sourceError("not found", ErrSource)
	// ErrUnreachable means the source did not answer, not properly, or not to the end.
	ErrUnreachable = sourceError("not reachable", ErrSource)
	// ErrAuth means the source refused who we are, or wants to know it.
	ErrAuth = sourceError("access denied", ErrSource)
	// ErrNoTLS means the registry speaks plain HTTP, and nobody allowed that; it is ErrUnreachable, too.
	ErrNoTLS = sourceError("no TLS", ErrUnreachable)
	// ErrNoLayout means there is no OCI layout at the path; it is ErrUnreachable, too.
	ErrNoLayout = sourceError("no OCI layout", ErrUnreachable)
)

// kind is an error of a class whose name need not be in the text.
type kind struct {
	text   string
	parent error
}

func sourceError(text string, parent error) error { return &kind{text, parent} }
func (k *kind) Error() string                     { return k.text }
func (k *kind) Unwrap() error                     { return k.parent }

const (
	// stallTime is how long a body may stay without a byte. Registries that fetch from cold storage take up to half a
	// minute for the first one.
	stallTime = 60 * time.Second
	// resumes is how often one blob is continued after its connection broke.
	resumes = 5
	// resumePause is the pause before the first of these; it doubles.
	resumePause = 500 * time.Millisecond
)

// LayoutPrefix starts a reference to an OCI layout directory.
const LayoutPrefix = "oci:"

// Options are the caller's circumstances.
type Options struct {
	PlainHTTP []string       // hosts (with port) to talk to without TLS
	UserAgent string         // what to call ourselves
	RootCAs   *x509.CertPool // nil: those of Authorities
	Stall     time.Duration  // how long a body may stay silent; 0: one minute
	Mirrors   []string       // references to ask when the one of Open fails, in this order
	Warn      func(error)    // hears of places that were passed over; nil: nobody does
}

// Source is one published image, or a place where one will be; and its mirrors.
type Source struct {
	name    string
	backend backend
	resumes int
	pause   time.Duration

	mirrors []*Source
	warn    func(error)
	mu      sync.Mutex // for these two, of this place and of the mirrors
	lied    error      // why it is not asked any more
	silent  error      // why it is asked last
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

// Open reads a reference: "host/repository:tag", "host/repository@sha256:…", "oci:DIR", "oci:DIR:tag" or
// "oci:DIR@sha256:…", or the same with "oci-archive:" and a tar of such a directory. It does not touch the source.
func Open(reference string, o Options) (*Source, error) {
	s, err := openPlace(reference, o)
	if err != nil {
		return nil, err
	}
	return s, s.openMirrors(o.Mirrors, o)
}

// openPlace opens a reference without its mirrors.
func openPlace(reference string, o Options) (*Source, error) {
	if o.Stall == 0 {
		o.Stall = stallTime
	}
	if prefix := localPrefix(reference); prefix != "" {
		l, err := newLayout(prefix, reference[len(prefix):])
		if err != nil {
			return nil, err
		}
		return newSource(reference, l), nil
	}
	if meant := meantLayout(reference); meant != "" {
		return nil, fmt.Errorf("%w %q: it names no registry: did you mean %s?", ErrReference, reference, meant)
	}
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %s", ErrReference, reference, strings.TrimPrefix(err.Error(), errdef.ErrInvalidReference.Error()+": "))
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

// meantLayout returns the reference to a layout that was meant by one that names no registry, "" when it cannot be
// one.
func meantLayout(reference string) string {
	path := strings.HasPrefix(reference, "/") || strings.HasPrefix(reference, "./") || strings.HasPrefix(reference, "../")
	if strings.Contains(reference, "/") && !path || strings.Contains(reference, " ") {
		return ""
	}
	prefix := LayoutPrefix
	if path, _, _ := SplitLayout(reference); strings.HasSuffix(path, ".tar") {
		prefix = archivePrefix
	}
	if _, err := newLayout(prefix, reference); err != nil {
		return ""
	}
	return prefix + reference
}

func newSource(reference string, b backend) *Source {
	s := &Source{name: reference, backend: b}
	s.budget.left.Store(int64(metadataTime))
	return s
}

// localPrefix returns how a reference to something on disk begins, "" for one to a registry.
func localPrefix(reference string) string {
	for _, prefix := range []string{LayoutPrefix, archivePrefix} {
		if strings.HasPrefix(reference, prefix) {
			return prefix
		}
	}
	return ""
}

// WithTag returns the reference of another tag at the same place, "" if that cannot be a tag.
func WithTag(reference, tag string) string {
	if !validTag.MatchString(tag) {
		return ""
	}
	place, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(place, ':'); i > strings.LastIndexByte(place, '/') && i >= len(localPrefix(reference)) {
		place = place[:i]
	}
	return place + ":" + tag
}

// String returns the reference the source was opened with.
func (s *Source) String() string { return s.name }

// Resolve returns what the reference stands for now: a manifest or an index.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	err := s.ask(func(place *Source) (err error) {
		ctx, end := place.budget.spend(ctx)
		if d, err = place.backend.resolve(ctx, ""); err != nil {
			return end(err)
		}
		return end(s.pinned(d.Digest))
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot resolve %s: %w", s, err)
	}
	return d, nil
}

// Manifest returns a manifest or an index whole.
func (s *Source) Manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	data, err := s.whole(ctx, d, true)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch manifest %s of %s: %w", d.Digest, s, err)
	}
	return data, nil
}

// whole asks for a document that is read whole.
func (s *Source) whole(ctx context.Context, d ocispec.Descriptor, manifest bool) (data []byte, err error) {
	err = s.ask(func(place *Source) (err error) {
		ctx, end := place.budget.spend(ctx)
		data, err = place.read(ctx, d, manifest, verify.MaxManifest)
		return end(err)
	})
	return data, err
}

// Config returns the configuration of an image whole.
func (s *Source) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	data, err := s.whole(ctx, d, false)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch configuration %s of %s: %w", d.Digest, s, err)
	}
	return data, nil
}

// Blob streams a blob. EOF comes only after size and digest were right. When they were not and there is another place
// to ask, the error is an ErrElsewhere, too.
func (s *Source) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, err := s.startBlob(ctx, d)
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
