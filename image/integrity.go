package image

import (
	"errors"
	"fmt"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
)

// CheckRoot returns a [store.ErrDamaged] if the composefs image of a root is not what image.json says or, for a sealed
// image, not what its release says. The evidence is taken as it is on the disk; [Stage] compares with a release that
// was just verified.
func CheckRoot(st *store.Store, root store.Root) error {
	if err := st.Intact(root); err != nil {
		return err
	}
	seal, err := sealOf(root)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	if seal != (fsverity.Digest{}) && seal != root.Info.RootDigest { // which is that of root.cfs
		return fmt.Errorf("%w: %s has the digest %s, and the release seals the image with %s", store.ErrDamaged,
			root.CFS(), root.Info.RootDigest, seal)
	}
	return nil
}

// sealOf returns the seal of a root by the evidence beside it, the zero value if there is none.
func sealOf(root store.Root) (fsverity.Digest, error) {
	evidence, err := root.Evidence()
	if errors.Is(err, store.ErrNoEvidence) {
		return fsverity.Digest{}, nil
	}
	if err != nil {
		return fsverity.Digest{}, err
	}
	return SealIn(evidence, root.Info.Digest.String())
}

// SealIn returns the seal of an image in its evidence, the zero value if its release has none.
func SealIn(evidence verify.Evidence, image string) (fsverity.Digest, error) {
	if len(evidence.Chain) == 0 || !release.Is(evidence.Chain[0].Content) {
		return fsverity.Digest{}, nil
	}
	r, err := release.Read(evidence.Chain[0].Content)
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot read the release in the evidence: %w", err)
	}
	for _, i := range r.Images {
		if i.Descriptor.Digest.String() == image {
			return i.RootDigest, nil
		}
	}
	return fsverity.Digest{}, nil
}
