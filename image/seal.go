package image

import (
	"context"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// Foreseen is what is known of the root that staging an image makes, without a store.
type Foreseen struct {
	// Digest is what its publisher names in a release to seal it.
	Digest fsverity.Digest
	// KernelVersions are uname -v of its kernels, by uname -r; only those for x86 tell it.
	KernelVersions map[string]string
}

// Foresee reads every layer of an image.
func Foresee(ctx context.Context, src *source.Source, layers []ocispec.Descriptor, diffIDs []digest.Digest) (Foreseen, error) {
	if len(layers) != len(diffIDs) {
		return Foreseen{}, fmt.Errorf("%w: %d layers, but the configuration knows %d", verify.ErrMalformed, len(layers), len(diffIDs))
	}
	tree, seen := layer.NewTree(), banners{}
	for n, l := range layers {
		if err := readLayer(ctx, src, tree, l, diffIDs[n], seen.put); err != nil {
			return Foreseen{}, fmt.Errorf("cannot read layer %d of %d: %w", n+1, len(layers), err)
		}
	}
	f, err := os.CreateTemp("", "root.cfs.*")
	if err != nil {
		return Foreseen{}, fmt.Errorf("cannot compute the root's digest: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	root, err := composefs.Write(f, tree)
	return Foreseen{root, seen.versions(tree)}, err
}

func readLayer(ctx context.Context, src *source.Source, tree *layer.Tree, l ocispec.Descriptor, diffID digest.Digest, put layer.Putter) error {
	body, err := src.Blob(ctx, l)
	if err != nil {
		return err
	}
	defer body.Close()
	return tree.AddBlob(body, l.MediaType, diffID, put)
}
