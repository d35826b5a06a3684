package source

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// Whatever is under the tag of cosign 2, reading it returns a bounded number of candidates and no error, because
// anybody can write it.
func FuzzSignatureManifest(f *testing.F) {
	where := newTestLayout(f)
	where.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest},
		"stable")
	payload := where.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte("P"))
	payload.Annotations = map[string]string{SignatureAnnotation: "Uw==", certificateAnnotation: "C",
		logAnnotation: "L", timestampAnnotation: "T"}
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
		found, read, err := where.open(t, ":stable").signaturesIn(t.Context(), d, verify.MaxCandidates)
		if err != nil || len(found) > read || read > verify.MaxCandidates {
			t.Errorf("%d candidates, %v", len(found), err)
		}
		for _, c := range found {
			if c.From != d.Digest.String() || (c.Form == verify.FormBundle) != (len(c.Bundle) > 0) {
				t.Errorf("candidate %+v", c)
			}
		}
	})
}

// FuzzLayoutIndex reads the index.json of a layout, which is not trusted.
func FuzzLayoutIndex(f *testing.F) {
	where := newTestLayout(f)
	where.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest},
		"stable")
	file := filepath.Join(where.dir, ocispec.ImageIndexFile)
	good, err := os.ReadFile(file)
	if err != nil || len(good) == 0 {
		f.Fatalf("no seed: %v", err)
	}
	f.Add(good)
	f.Add([]byte(`{"manifests":[{"digest":"sha256:../../x","size":-1},` +
		`{"annotations":{"org.opencontainers.image.ref.name":"stable"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"", ":stable"} {
			s := where.open(t, suffix)
			d, err := s.Resolve(t.Context())
			if err == nil {
				_, err = s.Manifest(t.Context(), d)
			}
			if err == nil {
				_, err = s.Candidates(t.Context(), d.Digest)
			}
			if err != nil && !errors.Is(err, failure.ErrSource) && !errors.Is(err, verify.ErrNotTrusted) {
				t.Errorf("%v has no class", err)
			}
		}
	})
}
