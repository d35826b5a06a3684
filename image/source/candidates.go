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

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

const (
	// bundleType starts the media type of a Sigstore bundle, of any version.
	bundleType = "application/vnd.dev.sigstore.bundle"
	// SignatureAnnotation has the signature of a layer's content in cosign's simple signing, in base64.
	SignatureAnnotation = "dev.cosignproject.cosign/signature"
	// The proofs of a keyless signature are in other annotations. The certificate chain that may be there is not read:
	// intermediate certificates come from the pinned trust root.
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	logAnnotation         = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
	// PredicateAnnotation says what a bundle is about. It only decides which bundles are read first.
	PredicateAnnotation = "dev.sigstore.bundle.predicateType"
)

// Candidates returns possible signatures of the manifest or index with that digest: bundles that are attached as
// referrers, by the referrers API or by its fallback tag, and those under the ".sig" tag of cosign 2. An empty result
// means that the source answered that there are none; a source that does not answer is an error.
//
// The artifact type in a descriptor is often wrong or missing. So it only decides in which order referrers are read:
// there may be more of them, such as vulnerability reports, than are fetched.
func (s *Source) Candidates(ctx context.Context, d digest.Digest) ([]verify.Candidate, error) {
	var found []verify.Candidate
	var err error
	if len(s.mirrors) > 0 {
		found, err = s.candidatesEverywhere(ctx, d)
	} else {
		found, err = s.candidates(ctx, d, verify.MaxCandidates)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for signatures of %s: %w", s, err)
	}
	return found, nil
}

// candidates returns at most limit possible signatures from this place.
func (s *Source) candidates(ctx context.Context, d digest.Digest, limit int) ([]verify.Candidate, error) {
	ctx, end := s.budget.spend(ctx)
	found, err := s.findSignatures(ctx, d, limit)
	return found, end(err)
}

func (s *Source) findSignatures(ctx context.Context, d digest.Digest, limit int) ([]verify.Candidate, error) {
	manifests, err := s.attached(ctx, d)
	if err != nil {
		return nil, err
	}
	var found []verify.Candidate
	for _, m := range manifests {
		more, read, err := s.signaturesIn(ctx, m, limit)
		if err != nil {
			return nil, fmt.Errorf("cannot fetch the signature %s: %w", m.Digest, err)
		}
		found = append(found, more...)
		if limit -= read; limit == 0 {
			break
		}
	}
	return found, nil
}

// attached lists the manifests that may have signatures, the most likely ones first.
func (s *Source) attached(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	found, err := s.backend.Referrers(ctx, d)
	if err != nil {
		return nil, err
	}
	fallback, err := s.fallback(ctx, referrersTag(d), d)
	if err != nil {
		return nil, err
	}
	found = append(found, fallback...)
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int { return signatureRank(a) - signatureRank(b) })
	sig, err := s.backend.Resolve(ctx, SignatureTag(d))
	switch {
	case err == nil:
		found = append([]ocispec.Descriptor{sig}, found...)
	case !errors.Is(err, failure.ErrNotFound):
		return nil, err
	}
	return unique(found), nil
}

// referrersTag returns the fallback tag of the referrers API.
func referrersTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// SignatureTag returns the tag under which cosign 2 keeps the signatures of the image with that digest.
func SignatureTag(d digest.Digest) string { return referrersTag(d) + ".sig" }

// fallback lists the referrers under the fallback tag.
func (s *Source) fallback(ctx context.Context, tag string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	d, err := s.backend.Resolve(ctx, tag)
	if errors.Is(err, failure.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Some registries return the image itself, as if the tag were its digest.
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

// signatureRank ranks a referrer: 0 if it says that it is a signature, 2 if it says that it is something else.
func signatureRank(d ocispec.Descriptor) int {
	switch {
	case d.Annotations[PredicateAnnotation] == verify.BundlePredicateType:
		return 0
	case d.Annotations[PredicateAnnotation] != "":
		return 2
	}
	return 1
}

// unique removes duplicates, and what exceeds the number that is fetched.
func unique(all []ocispec.Descriptor) []ocispec.Descriptor {
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

// signaturesIn returns the possible signatures in an attached manifest. One that is missing, too large or something
// else has none: anybody can attach one. Of its layers it reads at most limit, and returns how many those were: wrong
// ones cost as much as right ones.
func (s *Source) signaturesIn(ctx context.Context, d ocispec.Descriptor, limit int) (found []verify.Candidate,
	read int, err error) {
	data, err := s.read(ctx, d, true, verify.MaxManifest)
	if isAbsent(err) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, 0, nil
	}
	for _, l := range m.Layers {
		if read == limit {
			break
		}
		_, signed := l.Annotations[SignatureAnnotation]
		bundle := strings.HasPrefix(l.MediaType, bundleType)
		if !signed && !bundle {
			continue
		}
		read++
		content, err := s.read(ctx, l, false, verify.MaxBundle)
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return nil, read, err
		}
		if c, ok := candidate(content, bundle, l.Annotations); ok {
			c.From = d.Digest.String()
			found = append(found, c)
		}
	}
	return found, read, nil
}

// candidate makes a candidate from the content of a layer.
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

// isAbsent reports whether err means that there is no signature, rather than that the source did not answer. Content
// that does not match its descriptor is no signature: anybody can write a descriptor.
func isAbsent(err error) bool {
	return errors.Is(err, failure.ErrNotFound) || errors.Is(err, verify.ErrMalformed) || errors.Is(err, verify.ErrDigest)
}
