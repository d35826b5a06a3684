package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// simpleMediaType is the media type of a layer with a simple-signing payload.
const simpleMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"

// attachSimple adds layers, each a payload with its signature, to those under the ".sig" tag of the image. Their blobs
// are already there.
func (p *place) attachSimple(ctx context.Context, image ocispec.Descriptor, layers []ocispec.Descriptor) error {
	all, err := p.simpleLayers(ctx, image.Digest)
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for _, l := range all {
		have[l.Annotations[source.SignatureAnnotation]] = true
	}
	for _, l := range layers {
		if !have[l.Annotations[source.SignatureAnnotation]] {
			all = append(all, l)
		}
	}
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range all {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	c, err := p.pushBlob(ctx, ocispec.MediaTypeImageConfig, data)
	if err != nil {
		return err
	}
	data, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    c,
		Layers:    all,
	})
	if err != nil {
		return err
	}
	_, err = oras.TagBytes(ctx, p.target, ocispec.MediaTypeImageManifest, data, source.SignatureTag(image.Digest))
	return err
}

// simpleLayers returns the layers under the ".sig" tag of the image.
func (p *place) simpleLayers(ctx context.Context, image digest.Digest) ([]ocispec.Descriptor, error) {
	d, err := p.target.Resolve(ctx, source.SignatureTag(image))
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d.Size > verify.MaxManifest {
		return nil, fmt.Errorf("cannot read the signatures under %s: they have %d bytes", source.SignatureTag(image),
			d.Size)
	}
	data, err := content.FetchAll(ctx, p.target, d)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("cannot read the signatures under %s: %w", source.SignatureTag(image), err)
	}
	return m.Layers, nil
}
