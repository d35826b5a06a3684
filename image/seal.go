package image

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// RootDigest computes the digest of the root that staging an image makes, without a store: what its publisher names in
// a release to seal it. It reads every layer.
func RootDigest(ctx context.Context, src *source.Source, layers []ocispec.Descriptor, diffIDs []digest.Digest) (fsverity.Digest, error) {
	if len(layers) != len(diffIDs) {
		return fsverity.Digest{}, fmt.Errorf("%w: %d layers, but the configuration knows %d", verify.ErrMalformed, len(layers), len(diffIDs))
	}
	tree := layer.NewTree()
	for n, l := range layers {
		if err := readLayer(ctx, src, tree, l, diffIDs[n]); err != nil {
			return fsverity.Digest{}, fmt.Errorf("cannot read layer %d of %d: %w", n+1, len(layers), err)
		}
	}
	f, err := os.CreateTemp("", "root.cfs.*")
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot compute the root's digest: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	return composefs.Write(f, tree)
}

func readLayer(ctx context.Context, src *source.Source, tree *layer.Tree, l ocispec.Descriptor, diffID digest.Digest) error {
	body, err := src.Blob(ctx, l)
	if err != nil {
		return err
	}
	defer body.Close()
	return tree.AddBlob(body, l.MediaType, diffID, discard)
}

// discard is a store that keeps nothing.
func discard(r io.Reader, size int64) (fsverity.Digest, error) {
	var h fsverity.Hasher
	if _, err := io.CopyN(&h, r, size); err != nil {
		return fsverity.Digest{}, err
	}
	return h.Digest(), nil
}
