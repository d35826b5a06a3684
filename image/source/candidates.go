package source

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

const (
	// bundleType starts the media type of a Sigstore bundle, of any version.
	bundleType = "application/vnd.dev.sigstore.bundle"
	// SignatureAnnotation is where cosign's simple signing keeps the signature of a layer's content, in base64.
	SignatureAnnotation = "dev.cosignproject.cosign/signature"
	// What proves it lies beside it. The chain that may be there, too, is not read: intermediate certificates come
	// from the pinned trust root.
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	logAnnotation         = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
	// PredicateAnnotation says what a bundle is about. It only decides which bundles are looked at first.
	PredicateAnnotation = "dev.sigstore.bundle.predicateType"
)

// Candidates returns what may be signatures of the manifest or index with that digest: bundles attached as referrers,
// by the API or by the tag that stands in for it, and cosign's older ".sig" tag. An empty result means the source says
// there are none; if it could not be asked, that is an error.
//
// What a descriptor says about its artifact is not relied on: it is often wrong or missing. It only decides in which
// order the referrers are looked at, of which there may be more (vulnerability reports, say) than are fetched.
func (s *Source) Candidates(ctx context.Context, d digest.Digest) ([]verify.Candidate, error) {
	var found []verify.Candidate
	var err error
	if len(s.mirrors) > 0 {
		found, err = s.everywhere(ctx, d)
	} else {
		found, err = s.candidates(ctx, d, verify.MaxCandidates)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for signatures of %s: %w", s, err)
	}
	return found, nil
}

// candidates looks for signatures at one place, at most limit.
func (s *Source) candidates(ctx context.Context, d digest.Digest, limit int) ([]verify.Candidate, error) {
	ctx, end := s.budget.spend(ctx)
	found, err := s.look(ctx, d, limit)
	return found, end(err)
}

func (s *Source) look(ctx context.Context, d digest.Digest, limit int) ([]verify.Candidate, error) {
	manifests, err := s.attached(ctx, d)
	if err != nil {
		return nil, err
	}
	var found []verify.Candidate
	for _, m := range manifests {
		more, err := s.extract(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("cannot fetch signature %s: %w", m.Digest, err)
		}
		found = append(found, more...)
		if len(found) >= limit {
			return found[:limit], nil
		}
	}
	return found, nil
}

// attached lists the manifests that may hold signatures, the likely ones first.
func (s *Source) attached(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	found, err := s.backend.referrers(ctx, d)
	if err != nil {
		return nil, err
	}
	fallback, err := s.fallback(ctx, referrersTag(d), d)
	if err != nil {
		return nil, err
	}
	found = append(found, fallback...)
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int { return unlikely(a) - unlikely(b) })
	sig, err := s.backend.resolve(ctx, SignatureTag(d))
	switch {
	case err == nil:
		found = append([]ocispec.Descriptor{sig}, found...)
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	return distinct(found), nil
}

// referrersTag is the tag that stands in for the referrers API.
func referrersTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// SignatureTag returns the tag under which cosign 2 keeps the signatures of the image with that digest.
func SignatureTag(d digest.Digest) string { return referrersTag(d) + ".sig" }

// fallback reads the index under the tag that stands in for the referrers API.
func (s *Source) fallback(ctx context.Context, tag string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	d, err := s.backend.resolve(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Some registries take the tag for another way to write the digest.
	if d.MediaType != ocispec.MediaTypeImageIndex || d.Digest == subject {
		return nil, nil
	}
	data, err := s.read(ctx, d, true, verify.MaxManifest)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, nil // not a list of signatures
	}
	return index.Manifests, nil
}

// unlikely ranks a referrer: 0 for what calls itself a signature, more for less.
func unlikely(d ocispec.Descriptor) int {
	switch {
	case d.Annotations[PredicateAnnotation] == verify.BundlePredicateType:
		return 0
	case d.Annotations[PredicateAnnotation] != "":
		return 2
	}
	return 1
}

// distinct drops repetitions and cuts the list to what will be fetched.
func distinct(all []ocispec.Descriptor) []ocispec.Descriptor {
	var list []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, d := range all {
		if !seen[d.Digest] && len(list) < verify.MaxCandidates {
			seen[d.Digest] = true
			list = append(list, d)
		}
	}
	return list
}

// extract returns the signatures in one attached manifest. A manifest that is gone, too large or something else
// altogether has none; anybody may attach one.
func (s *Source) extract(ctx context.Context, d ocispec.Descriptor) ([]verify.Candidate, error) {
	data, err := s.read(ctx, d, true, verify.MaxManifest)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, nil
	}
	var found []verify.Candidate
	for _, l := range m.Layers {
		if len(found) == verify.MaxCandidates {
			break
		}
		_, signed := l.Annotations[SignatureAnnotation]
		bundle := strings.HasPrefix(l.MediaType, bundleType)
		if !signed && !bundle {
			continue
		}
		content, err := s.read(ctx, l, false, verify.MaxBundle)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c, ok := candidate(content, bundle, l.Annotations); ok {
			c.From = d.Digest.String()
			found = append(found, c)
		}
	}
	return found, nil
}

// candidate makes a candidate of a layer's content.
func candidate(content []byte, bundle bool, annotations map[string]string) (verify.Candidate, bool) {
	if bundle {
		return verify.Candidate{Form: verify.FormBundle, Bundle: content}, true
	}
	raw, err := base64.StdEncoding.DecodeString(annotations[SignatureAnnotation])
	return verify.Candidate{
		Form: verify.FormSimple, Payload: content, Signature: raw,
		Certificate: []byte(annotations[certificateAnnotation]),
		LogEntry:    []byte(annotations[logAnnotation]),
		Timestamp:   []byte(annotations[timestampAnnotation]),
	}, err == nil
}

// absent tells whether err means "no signature here" and not "could not look". Content that is not what its descriptor
// says is among it: anybody may have written the descriptor.
func absent(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, verify.ErrMalformed) || errors.Is(err, verify.ErrDigest)
}
