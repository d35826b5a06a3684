package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// Pushed says what Push copied.
type Pushed struct {
	Image      ocispec.Descriptor
	Signatures int // number of signatures attached to the image, or to the images of the index
}

// Push copies an image or index, and what is attached to it. The tag moves last, so that no host finds an image whose
// signatures are not there yet. progress is called for each blob and manifest that was copied, possibly in parallel.
func Push(ctx context.Context, from, to string, o Options, progress func(ocispec.Descriptor)) (*Pushed, error) {
	src, err := openSource(from, o)
	if err != nil {
		return nil, err
	}
	if _, err := src.Resolve(ctx); err != nil {
		return nil, err // before openPlace makes a layout with a mistyped name
	}
	c := &copier{progress: progress}
	if c.from, err = openPlace(from, o); err != nil {
		return nil, err
	}
	if c.to, err = openPlace(to, o); err != nil {
		return nil, err
	}
	if c.to.tag == "" || strings.Contains(c.to.tag, ":") {
		return nil, fmt.Errorf("%w %q: name the tag to push to", failure.ErrReference, to)
	}
	image, err := c.from.source.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	done := &Pushed{Image: bare(image)}
	done.Signatures, err = c.copy(ctx, done.Image)
	return done, err
}

// copier copies from one place to another.
type copier struct {
	from, to *place
	progress func(ocispec.Descriptor)
}

// copy copies an image, then its attachments, and then moves the tag. It returns the number of signatures.
func (c *copier) copy(ctx context.Context, image ocispec.Descriptor) (signatures int, err error) {
	if err := c.graph(ctx, image); err != nil {
		return 0, err
	}
	signed, err := c.signed(ctx, image)
	if err != nil {
		return 0, err
	}
	for _, d := range signed {
		n, err := c.attachments(ctx, d)
		if err != nil {
			return 0, err
		}
		signatures += n
	}
	return signatures, c.to.explain("tag", c.to.target.Tag(ctx, image, c.to.tag))
}

func (c *copier) graph(ctx context.Context, d ocispec.Descriptor) error {
	o := oras.DefaultCopyGraphOptions
	o.PostCopy = func(_ context.Context, d ocispec.Descriptor) error {
		c.progress(d)
		return nil
	}
	err := oras.CopyGraph(ctx, c.from.target, c.to.target, d, o)
	var step *oras.CopyError
	if errors.As(err, &step) && step.Origin == oras.CopyErrorOriginSource {
		return c.from.explain("read", err)
	}
	return c.to.explain("push to", err)
}

// signed lists what may have signatures: the image, or the index and its images.
func (c *copier) signed(ctx context.Context, image ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	list := []ocispec.Descriptor{image}
	if !verify.IsIndex(image.MediaType) {
		return list, nil
	}
	data, err := c.from.source.Manifest(ctx, image)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("cannot read the index %s: %w", image.Digest, err)
	}
	return append(list, index.Manifests...), nil
}

// attachments copies the signatures of an image, in both forms, and returns their number.
func (c *copier) attachments(ctx context.Context, image ocispec.Descriptor) (int, error) {
	referrers, err := registry.Referrers(ctx, c.from.target, bare(image), "")
	if err != nil {
		return 0, c.from.explain("list the signatures of", err)
	}
	for _, r := range referrers {
		if err := c.graph(ctx, r); err != nil {
			return 0, err
		}
	}
	layers, err := c.from.simpleLayers(ctx, image.Digest)
	if err != nil || len(layers) == 0 {
		return len(referrers), err
	}
	for _, l := range layers {
		data, err := content.FetchAll(ctx, c.from.target, l)
		if err != nil {
			return 0, c.from.explain("read a signature of", err)
		}
		if _, err := c.to.pushBlob(ctx, l.MediaType, data); err != nil {
			return 0, c.to.explain("push a signature to", err)
		}
	}
	return len(referrers) + len(layers), c.to.explain("attach signatures to", c.to.attachSimple(ctx, image, layers))
}
