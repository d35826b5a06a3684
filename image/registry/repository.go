package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// referrerPages bounds the pages of a list of referrers.
const referrerPages = 8

// manifestTypes lists the media types of manifests.
var manifestTypes = []string{
	ocispec.MediaTypeImageManifest,
	ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
}

// Repository is a repository in a registry.
type Repository struct {
	ref    registry.Reference
	scheme string
	client *auth.Client
}

// New returns the repository of a reference. It sends no request yet. The error is an ErrUnreachable.
func New(ref registry.Reference, o Options) (*Repository, error) {
	r := &Repository{ref: ref, scheme: "https"}
	if o.PlainHTTP {
		r.scheme = "http"
	}
	var err error
	r.client, err = Client(ref, o)
	return r, err
}

// repository returns a client for the repository.
func (r *Repository) repository() *remote.Repository {
	return &remote.Repository{
		Client:               r.client,
		Reference:            r.ref,
		PlainHTTP:            r.scheme == "http",
		ManifestMediaTypes:   manifestTypes,
		ReferrerListMaxPages: referrerPages,
		MaxMetadataBytes:     verify.MaxManifest,
	}
}

// Resolve returns what a tag stands for or, if it is empty, what the reference does.
func (r *Repository) Resolve(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	if tag == "" {
		tag = r.ref.Reference
	}
	d, err := r.repository().Resolve(ctx, tag)
	return d, Explain(err)
}

// Referrers asks the referrers API. The caller always reads the fallback tag as well, because images are copied
// between registries with and without that API.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	repository := r.repository()
	if err := repository.SetReferrersCapability(true); err != nil {
		return nil, fmt.Errorf("%w: %w", failure.ErrUnreachable, err)
	}
	var found []ocispec.Descriptor
	err := repository.Referrers(ctx, ocispec.Descriptor{Digest: d}, "", func(page []ocispec.Descriptor) error {
		found = append(found, page...)
		return nil
	})
	switch err = Explain(err); {
	case errors.Is(err, errdef.ErrUnsupported), errors.Is(err, failure.ErrNotFound),
		errors.Is(err, errdef.ErrTooManyPages):
		return found, nil
	}
	return found, err
}

// Open opens content at an offset. The body may start earlier: the number says where.
//
// It sends a GET request of its own: Fetch of the client cannot start at an offset, and does not distinguish wrong
// content from a failing server.
func (r *Repository) Open(ctx context.Context, d ocispec.Descriptor, manifest bool, offset int64) (io.ReadCloser,
	int64, error) {
	resp, err := r.get(auth.AppendRepositoryScope(ctx, r.ref, auth.ActionPull), d, manifest, offset)
	if err != nil {
		return nil, 0, Explain(err)
	}
	at, err := bodyStart(resp, offset)
	if err == nil && resp.ContentLength > d.Size-at {
		err = fmt.Errorf("%w: %s is served with %d bytes and must have %d", verify.ErrDigest, d.Digest, at+
			resp.ContentLength, d.Size)
	}
	if err != nil {
		resp.Body.Close()
		return nil, 0, err
	}
	return resp.Body, at, nil
}

// get requests content from an offset on.
func (r *Repository) get(ctx context.Context, d ocispec.Descriptor, manifest bool, offset int64) (*http.Response,
	error) {
	part := "blobs"
	if manifest {
		part = "manifests"
	}
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", r.scheme, r.ref.Host(), r.ref.Repository, part, d.Digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if manifest {
		req.Header.Set("Accept", strings.Join(manifestTypes, ", "))
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, &errcode.ErrorResponse{Method: req.Method, URL: req.URL, StatusCode: resp.StatusCode}
	}
	return resp, nil
}

// bodyStart returns the offset in the content at which a body starts. A server may ignore Range.
func bodyStart(resp *http.Response, offset int64) (int64, error) {
	if resp.StatusCode == http.StatusOK {
		return 0, nil
	}
	span, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	first, _, _ := strings.Cut(span, "-")
	at, err := strconv.ParseInt(first, 10, 64)
	if !ok || err != nil || at < 0 || at > offset {
		return 0, fmt.Errorf("%w: bytes from %d were requested, and the registry sent the range %q", failure.ErrUnreachable,
			offset, resp.Header.Get("Content-Range"))
	}
	return at, nil
}
