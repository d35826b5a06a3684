package publish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// userAgent is what registries see in their logs.
const userAgent = "releasectl"

// Options are the caller's circumstances.
type Options struct {
	PlainHTTP bool // talk to the registry without TLS
}

// place is somewhere an image can be written: a repository in a registry or an
// OCI layout.
type place struct {
	name   string // the reference as it was given
	target oras.GraphTarget
	tag    string // a tag or a digest, or "" for a layout's only image
	repo   string // host and repository, "" for a layout
	source *source.Source
}

// layoutPrefix starts a reference to an OCI layout, as package source reads it.
const layoutPrefix = "oci:"

// SplitLayout takes "DIR", "DIR:tag", "DIR@sha256:…" or the same after "oci:"
// apart; the second part is a tag, a digest or "".
func SplitLayout(reference string) (dir, tag string) {
	dir = strings.TrimPrefix(reference, layoutPrefix)
	if before, after, ok := strings.Cut(dir, "@"); ok {
		return before, after
	}
	if i := strings.LastIndexByte(dir, ':'); i > strings.LastIndexByte(dir, '/') {
		return dir[:i], dir[i+1:]
	}
	return dir, ""
}

// openPlace opens a reference for writing. It makes a layout that does not
// exist yet.
func openPlace(reference string, o Options) (*place, error) {
	src, err := openSource(reference, o)
	if err != nil {
		return nil, err
	}
	p := &place{name: reference, source: src}
	if strings.HasPrefix(reference, layoutPrefix) {
		var dir string
		dir, p.tag = SplitLayout(reference)
		p.target, err = oci.New(dir)
		if err != nil {
			return nil, fmt.Errorf("cannot open layout %s: %w", dir, err)
		}
		return p, nil
	}
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %v", source.ErrReference, reference, err)
	}
	p.tag, p.repo = ref.Reference, ref.Registry+"/"+ref.Repository
	p.target, err = repository(ref, o)
	return p, err
}

// openSource opens a reference for reading.
func openSource(reference string, o Options) (*source.Source, error) {
	so := source.Options{UserAgent: userAgent}
	if ref, err := registry.ParseReference(reference); err == nil && o.PlainHTTP {
		so.PlainHTTP = []string{ref.Registry}
	}
	return source.Open(reference, so)
}

// repository is the registry client that writes. Where the registry has no
// referrers API it keeps the index under the tag that stands in for it; the
// index it replaces is left to the registry's garbage collection, as many
// registries refuse to delete.
func repository(ref registry.Reference, o Options) (*remote.Repository, error) {
	roots, err := source.Authorities(ref.Registry)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	client := &auth.Client{
		Client:     &http.Client{Transport: retry.NewTransport(transport)},
		Cache:      auth.NewCache(),
		Credential: source.Credentials(ref),
	}
	client.SetUserAgent(userAgent)
	return &remote.Repository{
		Client:           client,
		Reference:        ref,
		PlainHTTP:        o.PlainHTTP,
		SkipReferrersGC:  true,
		MaxMetadataBytes: verify.MaxManifest,
	}, nil
}

// bare is what a subject or a tag needs of a descriptor.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// explain sorts an error of the registry client into the kinds of package
// source. Errors about a layout are left as they are.
func (p *place) explain(doing string, err error) error {
	var answer *errcode.ErrorResponse
	switch {
	case err == nil:
		return nil
	case p.repo == "", errors.Is(err, context.Canceled), errors.Is(err, source.ErrSource):
	case errors.Is(err, auth.ErrBasicCredentialNotFound),
		errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		err = fmt.Errorf("%w: %w", source.ErrAuth, err)
	case errors.Is(err, errdef.ErrNotFound):
		err = fmt.Errorf("%w: %w", source.ErrNotFound, err)
	default:
		err = fmt.Errorf("%w: %w", source.ErrUnreachable, err)
	}
	return fmt.Errorf("cannot %s %s: %w", doing, p.name, err)
}
