package source

import (
	"encoding/json"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// Whatever lies under the tag of cosign's older form, looking there ends with
// bounded candidates and without an error: anybody may have put it there.
func FuzzSignatureManifest(f *testing.F) {
	where := newTestLayout(f)
	where.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}, "stable")
	payload := where.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte("P"))
	payload.Annotations = map[string]string{signatureAnnotation: "Uw==", certificateAnnotation: "C", logAnnotation: "L", timestampAnnotation: "T"}
	bundle := where.blob(bundleMediaType, []byte("B"))
	var seeds [][]byte
	for _, layers := range [][]ocispec.Descriptor{{payload}, {bundle}, {payload, bundle, payload}} {
		text, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: layers})
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, text)
	}
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := where.blob(ocispec.MediaTypeImageManifest, text)
		found, err := where.open(t, ":stable").extract(t.Context(), d)
		if err != nil || len(found) > verify.MaxCandidates {
			t.Errorf("%d candidates, %v", len(found), err)
		}
		for _, c := range found {
			if c.From != d.Digest.String() || (c.Form == verify.FormBundle) != (len(c.Bundle) > 0) {
				t.Errorf("candidate %+v", c)
			}
		}
	})
}
