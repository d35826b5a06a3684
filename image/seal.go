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

// Prediction is what an image will be once it is staged.
type Prediction struct {
	// Digest is the digest of the root, with which a release seals the image.
	Digest fsverity.Digest
	// KernelVersions has uname -v of its kernels, by uname -r. Only x86 kernels say it.
	KernelVersions map[string]string
}

// Predict reads every layer of an image and computes what staging would make of it, without a store.
func Predict(ctx context.Context, src *source.Source, layers []ocispec.Descriptor,
	diffIDs []digest.Digest) (Prediction, error) {
	if len(layers) != len(diffIDs) {
		return Prediction{}, fmt.Errorf("%w: %d layers, but the configuration lists %d", verify.ErrMalformed,
			len(layers), len(diffIDs))
	}
	tree, seen := layer.NewTree(), banners{}
	for n, l := range layers {
		if err := readLayer(ctx, src, tree, l, diffIDs[n], seen.put); err != nil {
			return Prediction{}, fmt.Errorf("cannot read layer %d of %d: %w", n+1, len(layers), err)
		}
	}
	f, err := os.CreateTemp("", "root.cfs.*")
	if err != nil {
		return Prediction{}, fmt.Errorf("cannot compute the root's digest: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	root, err := composefs.Write(f, tree)
	return Prediction{root, seen.versions(tree)}, err
}

func readLayer(ctx context.Context, src *source.Source, tree *layer.Tree, l ocispec.Descriptor, diffID digest.Digest,
	put layer.Putter) error {
	body, err := src.Blob(ctx, l)
	if err != nil {
		return err
	}
	defer body.Close()
	return tree.AddBlob(body, l.MediaType, diffID, put, layer.SkipNote)
}
