package source

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
	"oras.land/oras-go/v2/errdef"
	distribution "oras.land/oras-go/v2/registry"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fetcher"
	"github.com/updatectl/updatectl/image/layout"
	"github.com/updatectl/updatectl/image/registry"
	"github.com/updatectl/updatectl/verify"
)

const (
	// resumes is how often a blob is continued after lost connections without progress in between.
	resumes = 5
	// resumePause is the pause before the first attempt. It doubles with each one.
	resumePause = 500 * time.Millisecond
)

// Options say how to reach a source.
type Options struct {
	PlainHTTP   []string      // registries (host or host:port) without TLS
	UserAgent   string        // as registries log it
	Authorities []byte        // certificate authorities, as PEM; nil means those of [registry.Authorities]
	Stall       time.Duration // how long a body may send nothing; 0 means one minute
	Rate        int64         // bytes per second that a body must have over that time; 0 means [registry.DefaultRate]
	MaxRate     int64         // bytes per second that blobs may come with from all registries together; 0 means no limit
	Total       time.Duration // how long all may take from Open on; 0 means no limit
	Mirrors     []string      // references to ask when the source fails, in order
	Warn        func(error)   // is called with what makes a fetch cost more, such as a place that is skipped; may be nil
	Apart       bool          // ask registries in processes without privileges, where that is possible

	another bool          // there is another place to ask
	limit   *rate.Limiter // of MaxRate
}

// Source is a place that publishes an image, with its mirrors.
type Source struct {
	name    string
	backend backend
	resumes int
	pause   time.Duration
	limit   *rate.Limiter // nil for none
	stall   time.Duration
	until   time.Time // when all must be there; zero means no limit

	mirrors []*Source
	warn    func(error)
	mu      sync.Mutex // for the three below, also in the mirrors
	lied    error      // why it is not asked again
	silent  error      // why it is asked last
	steady  bool       // whether no place is left for another one while it serves a blob
	budget  budget
}

// backend is where the bytes come from. It returns errors of package failure.
type backend interface {
	// Resolve returns what the reference stands for or, if tag is not empty, another tag at the same place.
	Resolve(ctx context.Context, tag string) (ocispec.Descriptor, error)
	// Open opens content at an offset. The body may start earlier: at says where.
	Open(ctx context.Context, d ocispec.Descriptor, manifest bool, offset int64) (body io.ReadCloser, at int64,
		err error)
	// Referrers lists what may refer to d, and possibly other manifests.
	Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error)
}

// Open opens a reference: host/repository:TAG, host/repository@sha256:…, oci:DIR, oci:DIR:TAG or oci:DIR@sha256:…, or
// the same with oci-archive: and a tar of such a directory. It does not access the source. The error is an
// ErrReference, or an ErrUnreachable when certificates cannot be read.
func Open(reference string, o Options) (*Source, error) {
	o.another = o.another || len(o.Mirrors) > 0
	if o.MaxRate > 0 && o.limit == nil {
		o.limit = newLimit(o.MaxRate)
	}
	s, err := openPlace(reference, o)
	if err != nil {
		return nil, err
	}
	return s, s.openMirrors(o.Mirrors, o)
}

// openPlace opens a reference without its mirrors.
func openPlace(reference string, o Options) (*Source, error) {
	if o.Stall == 0 {
		o.Stall = registry.StallTime
	}
	if prefix := localPrefix(reference); prefix != "" {
		l, err := layout.New(prefix, reference[len(prefix):])
		if err != nil {
			return nil, err
		}
		return newSource(reference, l, o), nil
	}
	if meant := meantLayout(reference); meant != "" {
		return nil, fmt.Errorf("%w %q: it names no registry: did you mean %s?", failure.ErrReference, reference, meant)
	}
	ref, err := distribution.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %s", failure.ErrReference, reference,
			strings.TrimPrefix(err.Error(), errdef.ErrInvalidReference.Error()+": "))
	}
	if ref.Reference == "" {
		return nil, fmt.Errorf("%w %q: it names neither a tag nor a digest", failure.ErrReference, reference)
	}
	plain := slices.Contains(o.PlainHTTP, ref.Registry)
	b, err := openRegistry(ref, o.Apart, registry.Options{
		PlainHTTP: plain, Authorities: o.Authorities, UserAgent: o.UserAgent, Stall: o.Stall, Rate: o.Rate,
		Impatient: o.another,
	})
	if err != nil {
		return nil, err
	}
	s := newSource(reference, b, o)
	s.resumes, s.pause, s.limit = resumes, resumePause, o.limit
	return s, nil
}

// openRegistry opens a repository: in a process of its own, or in this one.
func openRegistry(ref distribution.Reference, apart bool, o registry.Options) (backend, error) {
	if apart && fetcher.Possible() {
		return fetcher.New(ref, o)
	}
	return registry.New(ref, o)
}

// meantLayout returns the reference to a layout that was probably meant by one that names no registry, or "".
func meantLayout(reference string) string {
	path := strings.HasPrefix(reference, "/") || strings.HasPrefix(reference, "./") ||
		strings.HasPrefix(reference, "../")
	if strings.Contains(reference, "/") && !path || strings.Contains(reference, " ") {
		return ""
	}
	prefix := layout.Prefix
	if path, _, _ := layout.Split(reference); strings.HasSuffix(path, ".tar") {
		prefix = layout.ArchivePrefix
	}
	if _, err := layout.New(prefix, reference); err != nil {
		return ""
	}
	return prefix + reference
}

func newSource(reference string, b backend, o Options) *Source {
	s := &Source{name: reference, backend: b, stall: o.Stall}
	if o.Total > 0 {
		s.until = time.Now().Add(o.Total)
	}
	s.budget.left.Store(int64(metadataTime))
	return s
}

// IsLocal reports whether a reference is to something on disk.
func IsLocal(reference string) bool { return localPrefix(reference) != "" }

// localPrefix returns the prefix of a reference to something on disk, or "" if it is to a registry.
func localPrefix(reference string) string {
	for _, prefix := range []string{layout.Prefix, layout.ArchivePrefix} {
		if strings.HasPrefix(reference, prefix) {
			return prefix
		}
	}
	return ""
}

// WithTag returns the reference with another tag, or "" if tag is not valid.
func WithTag(reference, tag string) string {
	if !layout.ValidTag.MatchString(tag) {
		return ""
	}
	place, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(place, ':'); i > strings.LastIndexByte(place, '/') &&
		i >= len(localPrefix(reference)) {
		place = place[:i]
	}
	return place + ":" + tag
}

// String returns the reference that the source was opened with.
func (s *Source) String() string { return s.name }

// Resolve returns the manifest or index that the reference stands for now.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	err := s.askPlaces(func(place *Source) (err error) {
		ctx, end := place.budget.spend(ctx)
		if d, err = place.backend.Resolve(ctx, ""); err != nil {
			return end(err)
		}
		return end(s.checkPin(d.Digest))
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot resolve %s: %w", s, err)
	}
	return d, nil
}

// Manifest returns the bytes of a manifest or an index.
func (s *Source) Manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	data, err := s.readDocument(ctx, d, true)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch the manifest %s of %s: %w", d.Digest, s, err)
	}
	return data, nil
}

// readDocument returns the bytes of a manifest, an index or a configuration.
func (s *Source) readDocument(ctx context.Context, d ocispec.Descriptor, manifest bool) (data []byte, err error) {
	err = s.askPlaces(func(place *Source) (err error) {
		ctx, end := place.budget.spend(ctx)
		data, err = place.read(ctx, d, manifest, verify.MaxManifest)
		return end(err)
	})
	return data, err
}

// Config returns the bytes of the configuration of an image.
func (s *Source) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	data, err := s.readDocument(ctx, d, false)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch the configuration %s of %s: %w", d.Digest, s, err)
	}
	return data, nil
}

// Blob streams a blob. The reader returns io.EOF only if size and digest are right, else an error. If there is another
// place to ask, that error is an ErrElsewhere as well.
func (s *Source) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, err := s.startBlob(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch the blob %s of %s: %w", d.Digest, s, err)
	}
	return b, nil
}

// BlobAfter streams a blob of which the beginning may be kept, and keeps the rest. Wrong content is an ErrPart if there
// was a beginning.
func (s *Source) BlobAfter(ctx context.Context, d ocispec.Descriptor, part *Part) (io.ReadCloser, error) {
	b, err := placedBlob(ctx, s, d)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch the blob %s of %s: %w", d.Digest, s, err)
	}
	b.part = part
	return b, nil
}

// Remote reports whether a network is between this host and one of the places.
func (s *Source) Remote() bool {
	return s.resumes > 0 || slices.ContainsFunc(s.mirrors, (*Source).Remote)
}

// read returns content of at most limit bytes.
func (s *Source) read(ctx context.Context, d ocispec.Descriptor, manifest bool, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%w: it has %d bytes, more than %d", verify.ErrMalformed, d.Size, limit)
	}
	b, err := s.newBlob(ctx, d, manifest)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}
