package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// Report describes what is published at a reference. Unless a signature is verified, everything in it is only what the
// registry says.
type Report struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type"`
	Version   string        `json:"version,omitempty"`
	Platform  string        `json:"platform,omitempty"`
	Layers    []Part        `json:"layers,omitempty"` // of an image
	Images    []Part        `json:"images,omitempty"` // of an index
	// Release is set if the index is a release.
	Release    *release.Release `json:"release,omitempty"`
	Signatures []Signature      `json:"signatures"`
}

// Part is a layer of an image or an image of an index.
type Part struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type"`
	Size      int64         `json:"size"`
	Platform  string        `json:"platform,omitempty"`
}

// Signature is a signature that was found, and whether one of the keys made it.
type Signature struct {
	Form     verify.Form `json:"form"`
	From     string      `json:"from"`
	Verified bool        `json:"verified"`
	Signer   string      `json:"signer,omitempty"`
	KeyID    string      `json:"key_id,omitempty"`
	Problem  string      `json:"problem,omitempty"` // why none of the keys verified it
}

// Inspect describes what is published at a reference. If there are keys and none of them signed it, the error is a
// verify.ErrNotTrusted, and the report is still complete.
func Inspect(ctx context.Context, reference string, keys []verify.Key, o Options) (*Report, error) {
	src, err := openSource(reference, o)
	if err != nil {
		return nil, err
	}
	d, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	found, err := src.Candidates(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	r := &Report{Digest: d.Digest, MediaType: d.MediaType, Signatures: []Signature{}}
	if err := r.describe(ctx, src, content); err != nil {
		return nil, err
	}
	policy := verify.Policy{Keys: keys}
	for _, c := range found {
		r.Signatures = append(r.Signatures, judge(policy, content, d.MediaType, c))
	}
	if len(keys) == 0 {
		return r, nil
	}
	_, err = policy.Verify(content, d.MediaType, found)
	return r, err
}

// judge verifies one signature.
func judge(p verify.Policy, content []byte, mediaType string, c verify.Candidate) Signature {
	s := Signature{Form: c.Form, From: c.From}
	if len(p.Keys) == 0 {
		return s
	}
	v, err := p.Verify(content, mediaType, []verify.Candidate{c})
	if errors.Is(err, verify.ErrWrongKey) {
		s.Problem = "none of the keys made it"
		return s
	}
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	s.Verified, s.Signer, s.KeyID = true, v.Vouchers()[0].Signer, v.Vouchers()[0].KeyID
	return s
}

// describe fills in what the manifest or the index says.
func (r *Report) describe(ctx context.Context, src *source.Source, content []byte) error {
	var m struct {
		Config      ocispec.Descriptor   `json:"config"`
		Layers      []ocispec.Descriptor `json:"layers"`
		Manifests   []ocispec.Descriptor `json:"manifests"`
		Annotations map[string]string    `json:"annotations"`
	}
	if err := json.Unmarshal(content, &m); err != nil {
		return fmt.Errorf("cannot read the manifest %s: %w", r.Digest, err)
	}
	r.Version = m.Annotations[ocispec.AnnotationVersion]
	r.Layers, r.Images = parts(m.Layers), parts(m.Manifests)
	if verify.IsIndex(r.MediaType) && release.Is(content) {
		var err error
		if r.Release, err = release.Read(content); err != nil {
			return fmt.Errorf("cannot read the release: %w", err)
		}
		r.Version = r.Release.Version
	}
	if !verify.IsManifest(r.MediaType) {
		return nil
	}
	c, err := config(ctx, src, m.Config)
	if err != nil {
		return err
	}
	r.Platform = platform(&c.Platform)
	if label := c.Config.Labels[ocispec.AnnotationVersion]; label != "" {
		r.Version = label
	}
	return nil
}

func parts(list []ocispec.Descriptor) []Part {
	var all []Part
	for _, d := range list {
		all = append(all, Part{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Platform: platform(d.Platform)})
	}
	return all
}

func platform(p *ocispec.Platform) string {
	if p == nil || p.Architecture == "" {
		return ""
	}
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// config reads the configuration of an image. That of another artifact has no platform.
func config(ctx context.Context, src *source.Source, d ocispec.Descriptor) (*ocispec.Image, error) {
	data, err := src.Config(ctx, d)
	if err != nil {
		return nil, err
	}
	var c ocispec.Image
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("cannot read the configuration %s: %w", d.Digest, err)
	}
	return &c, nil
}
