package publish

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// ErrIdentity means that a simple signature must name a repository, and none is known.
var ErrIdentity = errors.New("no repository to name in the signature")

// ErrByTag means that what is to be signed is named only by a tag of a registry, which may serve anything under it.
var ErrByTag = errors.New("a registry may serve anything under a tag, so its digest must be named")

// Seal says how to sign.
type Seal struct {
	Signer   crypto.Signer
	Form     verify.Form
	Identity string    // the repository that a simple signature names; "" means that of the image
	Time     time.Time // the time in the manifest of the bundle
}

// Signed says what Sign did.
type Signed struct {
	Image   ocispec.Descriptor
	Key     verify.Key
	Already bool // it already had a signature of this form by the key
}

// Sign attaches a signature to the image or index at a reference. It is published only if package verify accepts it. A
// reference to a registry must have a digest, else the error is an ErrByTag.
func Sign(ctx context.Context, reference string, s Seal, o Options) (*Signed, error) {
	key, err := sign.PublicKey("the signing key", s.Signer)
	if err != nil {
		return nil, err
	}
	src, err := openSource(reference, o)
	if err != nil {
		return nil, err
	}
	if !source.IsLocal(reference) && !strings.Contains(reference, "@") {
		return nil, fmt.Errorf("cannot sign %s: %w", reference, ErrByTag)
	}
	image, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	content, err := src.Manifest(ctx, image)
	if err != nil {
		return nil, err
	}
	found, err := src.Candidates(ctx, image.Digest)
	if err != nil {
		return nil, err
	}
	done := &Signed{Image: bare(image), Key: key}
	accepts := func(c verify.Candidate) error {
		_, err := verify.Policy{Keys: []verify.Key{key}}.Verify(content, image.MediaType, []verify.Candidate{c})
		return err
	}
	for _, c := range found {
		if c.Form == s.Form && accepts(c) == nil {
			done.Already = true
			return done, nil
		}
	}
	p, err := openPlace(reference, o)
	if err != nil {
		return nil, err
	}
	c, err := s.candidate(image, p)
	if err != nil {
		return nil, err
	}
	if err := accepts(c); err != nil {
		return nil, fmt.Errorf("cannot sign %s: hosts would refuse it: %w", reference, err)
	}
	return done, p.explain("attach the signature to", p.attach(ctx, done.Image, c, s.Time))
}

// candidate makes the signature in the form in which a host finds it.
func (s Seal) candidate(image ocispec.Descriptor, p *place) (verify.Candidate, error) {
	c := verify.Candidate{Form: s.Form, From: p.name}
	var err error
	switch s.Form {
	case verify.FormBundle:
		c.Bundle, err = sign.Bundle(s.Signer, image.Digest)
		return c, err
	case verify.FormSimple:
		identity := s.Identity
		if identity == "" {
			identity = p.repo
		}
		if identity == "" {
			return c, fmt.Errorf("cannot sign %s: %w", p.name, ErrIdentity)
		}
		c.Payload, c.Signature, err = sign.Simple(s.Signer, identity, image.Digest)
		return c, err
	}
	return c, fmt.Errorf("cannot sign: unknown form %q", s.Form)
}

// attach publishes a signature as its form requires.
func (p *place) attach(ctx context.Context, image ocispec.Descriptor, c verify.Candidate, when time.Time) error {
	if c.Form == verify.FormBundle {
		return p.attachBundle(ctx, image, c.Bundle, when)
	}
	layer, err := p.pushBlob(ctx, simpleMediaType, c.Payload)
	if err != nil {
		return err
	}
	layer.Annotations = map[string]string{source.SignatureAnnotation: base64.StdEncoding.EncodeToString(c.Signature)}
	return p.attachSimple(ctx, image, []ocispec.Descriptor{layer})
}

// attachBundle publishes a bundle as a referrer, as cosign 3 does.
func (p *place) attachBundle(ctx context.Context, image ocispec.Descriptor, bundle []byte, when time.Time) error {
	layer, err := p.pushBlob(ctx, verify.BundleMediaType, bundle)
	if err != nil {
		return err
	}
	_, err = oras.PackManifest(ctx, p.target, oras.PackManifestVersion1_1, verify.BundleMediaType,
		oras.PackManifestOptions{
			Subject: &image,
			Layers:  []ocispec.Descriptor{layer},
			ManifestAnnotations: map[string]string{
				"dev.sigstore.bundle.content": "dsse-envelope",
				source.PredicateAnnotation:    verify.BundlePredicateType,
				ocispec.AnnotationCreated:     when.UTC().Format(time.RFC3339),
			},
		})
	return err
}

// pushBlob publishes a blob, unless it exists.
func (p *place) pushBlob(ctx context.Context, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := content.NewDescriptorFromBytes(mediaType, data)
	err := p.target.Push(ctx, d, bytes.NewReader(data))
	if errors.Is(err, errdef.ErrAlreadyExists) {
		err = nil
	}
	return d, err
}
