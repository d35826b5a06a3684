package verify_test

import (
	"errors"
	"fmt"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// A host has a key, and got a manifest and possible signatures of it from an untrusted source. The manifest is not
// parsed before the signature is verified.
func Example() {
	pem, _ := os.ReadFile("testdata/ecdsa.pub")
	manifest, _ := os.ReadFile("testdata/image.json")
	bundle, _ := os.ReadFile("testdata/ecdsa.cosign3.bundle.json")

	key, err := verify.ParseKey("release.pub", pem)
	if err != nil {
		fmt.Println(err)
		return
	}
	policy := verify.Policy{Keys: []verify.Key{key}}
	found := []verify.Candidate{{Form: verify.FormBundle, Bundle: bundle}}

	image, err := policy.Verify(manifest, ocispec.MediaTypeImageManifest, found)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(image.Vouchers()[0].Signer, "vouches for", image.Digest())

	_, err = policy.Verify(append(manifest, ' '), ocispec.MediaTypeImageManifest, found)
	fmt.Println("a changed manifest is not trusted:", errors.Is(err, verify.ErrNotTrusted))
	// Output:
	// release.pub vouches for sha256:6ebca0f27bee099385e011c7ba9e9e300616a7fcffc0b8e47bbe63de2a5005bf
	// a changed manifest is not trusted: true
}
