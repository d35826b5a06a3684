package verify_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// Even signed content must be exactly what it is served as.
func TestContent(t *testing.T) {
	const layers = `"config":{},"layers":[]`
	doc := func(mediaType, rest string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,%s}`, mediaType, rest)
	}
	tests := []struct {
		name, content, served string
		err                   error
		says                  string
	}{
		{"OCI manifest", doc(manifestType, layers), manifestType, nil, ""},
		{"OCI manifest without media type", `{"schemaVersion":2,` + layers + `}`, manifestType, nil, ""},
		{"OCI index", doc(indexType, `"manifests":[]`), indexType, nil, ""},
		{"Docker manifest", doc(verify.DockerManifest, layers), verify.DockerManifest, nil, ""},
		{"Docker list", doc(verify.DockerManifestList, `"manifests":[]`), verify.DockerManifestList, nil, ""},
		{"annotations that differ in case", doc(manifestType, layers+`,"annotations":{"a":"1","A":"2"}`), manifestType,
			nil, ""},
		{"unknown field", doc(manifestType, layers+`,"later":{}`), manifestType, nil, ""},

		{"neither", `{}`, "application/json", verify.ErrMalformed, "neither that of a manifest nor that of an index"},
		{"Docker manifest without media type", `{"schemaVersion":2,` + layers + `}`, verify.DockerManifest,
			verify.ErrMalformed, `its mediaType is ""`},
		{"index served as a manifest", doc(indexType, `"manifests":[]`), manifestType, verify.ErrMalformed,
			"served as"},
		{"unnamed index served as a manifest", `{"schemaVersion":2,"manifests":[]}`, manifestType, verify.ErrMalformed,
			"but is not one"},
		{"unnamed manifest served as an index", `{"schemaVersion":2,` + layers + `}`, indexType, verify.ErrMalformed,
			"but is not one"},
		{"both at once", doc(manifestType, layers+`,"manifests":[]`), manifestType, verify.ErrMalformed,
			"but is not one"},
		{"both at once, in capitals", doc(manifestType, layers+`,"MANIFESTS":[]`), manifestType, verify.ErrMalformed,
			`"MANIFESTS", which is spelled "manifests"`},
		{"index with layers", doc(indexType, `"manifests":[],"layers":[]`), indexType, verify.ErrMalformed,
			"but is not one"},
		{"index with a config", doc(indexType, `"manifests":[],"config":{}`), indexType, verify.ErrMalformed,
			"but is not one"},
		{"schema 1 fields", doc(manifestType, layers+`,"fsLayers":[]`), manifestType, verify.ErrMalformed,
			"another type of manifest"},
		{"schema 1", `{"schemaVersion":1,` + layers + `}`, manifestType, verify.ErrMalformed, "schemaVersion is 1"},
		{"layers twice", doc(manifestType, layers+`,"layers":[]`), manifestType, verify.ErrMalformed,
			`"layers" twice`},
		{"layers twice, in a letter that counts as s", doc(manifestType, layers+`,"layer\u017f":[]`), manifestType,
			verify.ErrMalformed, `which is spelled "layers"`},
		{"layers twice, in capitals", doc(manifestType, layers+`,"Layers":[]`), manifestType, verify.ErrMalformed,
			`"Layers", which is spelled "layers"`},
		{"annotation twice", doc(manifestType, layers+`,"annotations":{"a":"1","a":"2"}`), manifestType,
			verify.ErrMalformed, `"a" twice`},
		{"digest twice, deep", doc(manifestType, `"config":{"digest":"a","digest":"b"},"layers":[]`), manifestType,
			verify.ErrMalformed, `"digest" twice`},
		{"a tail", doc(manifestType, layers) + "{}", manifestType, verify.ErrMalformed,
			"something after the JSON object"},
		{"cut", doc(manifestType, layers)[:40], manifestType, verify.ErrMalformed, ""},
		{"empty", "", manifestType, verify.ErrMalformed, "not a JSON object"},
	}
	a := newSigner(t, "a.pub")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			content := []byte(test.content)
			v, err := verify.Policy{Keys: []verify.Key{a.Key}}.Verify(content, test.served,
				[]verify.Candidate{a.bundle(content)})
			checkVerdict(t, v, err, test.err, test.says)
		})
	}
}

// Verified content does not change, even if the buffer of the caller does.
func TestContentIsKept(t *testing.T) {
	a := newSigner(t, "a.pub")
	content := bytes.Clone(read(t, "image.json"))
	v, err := verify.Policy{Keys: []verify.Key{a.Key}}.Verify(content, manifestType,
		[]verify.Candidate{a.bundle(content)})
	if err != nil {
		t.Fatal(err)
	}
	content[0] = 'x'
	if digest.FromBytes(v.Bytes()) != v.Digest() {
		t.Error("the verified bytes changed with the caller's buffer")
	}
}

func TestDescend(t *testing.T) {
	image := read(t, "image.json")
	tampered := bytes.Replace(image, []byte("sha256:"), []byte("sha512:"), 1)
	listed := ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromBytes(image), Size: int64(len(image))}
	as := func(change func(*ocispec.Descriptor)) ocispec.Descriptor {
		d := listed
		change(&d)
		return d
	}
	asIndex := as(func(d *ocispec.Descriptor) { d.MediaType = indexType })
	huge := ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString("huge"), Size: verify.MaxManifest +
		1}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": indexType, "manifests": []ocispec.Descriptor{listed, asIndex, huge},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := newSigner(t, "a.pub")
	top, err := verify.Policy{Keys: []verify.Key{a.Key}}.Verify(index, indexType, []verify.Candidate{a.bundle(index)})
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		d       ocispec.Descriptor
		content []byte
		err     error
		says    string
	}{
		{"listed", listed, image, nil, ""},
		{"tampered", listed, tampered, verify.ErrDigest, "has the digest"},
		{"cut", listed, image[:10], verify.ErrDigest, "was served with 10"},
		{"another size", as(func(d *ocispec.Descriptor) { d.Size++ }), image, verify.ErrUnsigned, "is not listed"},
		{"another type", as(func(d *ocispec.Descriptor) { d.MediaType = verify.DockerManifest }), image,
			verify.ErrUnsigned, "is not listed"},
		{"not listed", as(func(d *ocispec.Descriptor) { d.Digest = digest.FromBytes(tampered) }), tampered,
			verify.ErrUnsigned, "is not listed"},
		{"listed as an index", asIndex, image, verify.ErrMalformed, "served as"},
		{"too large", huge, image, verify.ErrMalformed, "larger than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := top.Descend(test.d, test.content)
			checkVerdict(t, v, err, test.err, test.says)
			if err == nil && (v.Vouchers()[0].Signer != "a.pub" || v.Digest() != listed.Digest) {
				t.Errorf("descended to %s, vouched for by %v", v.Digest(), v.Vouchers())
			}
		})
	}
	t.Run("from a manifest", func(t *testing.T) {
		leaf, err := top.Descend(listed, image)
		if err != nil {
			t.Fatal(err)
		}
		v, err := leaf.Descend(listed, image)
		checkVerdict(t, v, err, verify.ErrMalformed, "is no index")
	})
}

// No content passes that can be read in two ways.
func FuzzManifest(f *testing.F) {
	seeds := [][]byte{
		read(f, "image.json"),
		[]byte(`{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[]}`),
		[]byte(`{"schemaVersion":2,"config":{},"layers":[],"annotations":{"a":"b"}}`),
		[]byte(`{"schemaVersion":2,"config":{},"layers":[],"layers":[]}`),
	}
	addSeeds(f, seeds)
	a := newSigner(f, "a.pub")
	f.Fuzz(func(t *testing.T, content []byte) {
		p := verify.Policy{Keys: []verify.Key{a.Key}}
		c := []verify.Candidate{a.bundle(content)}
		_, asManifest := p.Verify(content, manifestType, c)
		_, asIndex := p.Verify(content, indexType, c)
		if asManifest == nil && asIndex == nil {
			t.Errorf("passes as a manifest and as an index: %s", content)
		}
		if asManifest == nil || asIndex == nil {
			if !json.Valid(content) || strings.TrimSpace(string(content))[0] != '{' {
				t.Errorf("passes and is no JSON object: %q", content)
			}
		}
	})
}

func addSeeds(f *testing.F, seeds [][]byte) {
	f.Helper()
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for i, s := range seeds {
		if len(s) == 0 {
			f.Fatalf("seed %d is empty", i)
		}
		f.Add(s)
	}
}
