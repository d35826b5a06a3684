package source

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// target is where a test publishes: a registry or a layout.
type target interface {
	blob(mediaType string, content []byte) ocispec.Descriptor
	manifest(mediaType string, v any, tag string) ocispec.Descriptor
	open(t *testing.T, suffix string) *Source
}

// testLayout is an OCI layout being written.
type testLayout struct {
	dir   string
	index ocispec.Index
}

func newTestLayout(t testing.TB) *testLayout {
	l := &testLayout{dir: t.TempDir()}
	l.index.SchemaVersion = 2
	return l
}

func (l *testLayout) blob(mediaType string, content []byte) ocispec.Descriptor {
	r := newUnstarted()
	d := r.blob(mediaType, content)
	path := filepath.Join(l.dir, "blobs/sha256", d.Digest.Encoded())
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		panic(err)
	}
	return d
}

func (l *testLayout) manifest(mediaType string, v any, tag string) ocispec.Descriptor {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := l.blob(mediaType, content)
	entry := d
	if tag != "" {
		entry.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	l.index.Manifests = append(l.index.Manifests, entry)
	index, err := json.Marshal(l.index)
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "index.json"), index, 0o644); err != nil {
		panic(err)
	}
	return d
}

func (l *testLayout) open(t *testing.T, suffix string) *Source {
	t.Helper()
	s, err := Open("oci:"+l.dir+suffix, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const bundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// attach publishes a bundle as a referrer of an image.
func attach(to target, subject ocispec.Descriptor, tag string, bundle string) ocispec.Descriptor {
	subject.Annotations = nil
	return to.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Subject:   &subject,
		Layers:    []ocispec.Descriptor{to.blob(bundleMediaType, []byte(bundle))},
	}, tag)
}

// attachSig publishes a signature in the form of cosign 2.
func attachSig(to target, tag, payload, signature string) {
	l := to.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte(payload))
	l.Annotations = map[string]string{SignatureAnnotation: base64.StdEncoding.EncodeToString([]byte(signature))}
	to.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{l}}, tag)
}

// words returns the contents of candidates.
func words(found []verify.Candidate) []string {
	var list []string
	for _, c := range found {
		word := string(c.Form) + " " + string(c.Bundle) + string(c.Payload) + " " + string(c.Signature)
		for _, proof := range [][]byte{c.Certificate, c.LogEntry, c.Timestamp} {
			if len(proof) > 0 {
				word += " " + string(proof)
			}
		}
		list = append(list, word)
	}
	slices.Sort(list)
	return list
}

func TestCandidates(t *testing.T) {
	type setup func(to target, image ocispec.Descriptor, tag string)
	for _, c := range []struct {
		name  string
		setup setup
		want  []string
	}{
		{"none", func(target, ocispec.Descriptor, string) {}, nil},
		{"referrer", func(to target, image ocispec.Descriptor, _ string) { attach(to, image, "", "B1") },
			[]string{"bundle B1 "}},
		{"referrer of another image", func(to target, image ocispec.Descriptor, _ string) {
			image.Digest = image.Digest[:len(image.Digest)-1] + "x"
			attach(to, image, "", "B1")
		}, nil},
		{"fall-back tag", func(to target, image ocispec.Descriptor, tag string) {
			d := attach(to, ocispec.Descriptor{Digest: "sha256:0"}, "", "B1")
			to.manifest(ocispec.MediaTypeImageIndex,
				ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}, tag)
		}, []string{"bundle B1 "}},
		{"both lead to the same", func(to target, image ocispec.Descriptor, tag string) {
			d := attach(to, image, "", "B1")
			to.manifest(ocispec.MediaTypeImageIndex,
				ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d, d}}, tag)
		}, []string{"bundle B1 "}},
		{"old form", func(to target, _ ocispec.Descriptor, tag string) { attachSig(to, tag+".sig", "P", "S") },
			[]string{"simple-signing P S"}},
		{"old form, keyless", func(to target, _ ocispec.Descriptor, tag string) {
			l := to.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte("P"))
			l.Annotations = map[string]string{SignatureAnnotation: "Uw==", "dev.sigstore.cosign/certificate": "C",
				"dev.sigstore.cosign/chain":  "not read",
				"dev.sigstore.cosign/bundle": "L", "dev.sigstore.cosign/rfc3161timestamp": "T"}
			to.manifest(ocispec.MediaTypeImageManifest,
				ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{l}}, tag+
					".sig")
		}, []string{"simple-signing P S C L T"}},
		{"all forms", func(to target, image ocispec.Descriptor, tag string) {
			attach(to, image, "", "B1")
			attach(to, image, "", "B2")
			attachSig(to, tag+".sig", "P", "S")
		}, []string{"bundle B1 ", "bundle B2 ", "simple-signing P S"}},
		{"old form as a referrer", func(to target, image ocispec.Descriptor, _ string) {
			l := to.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte("P"))
			l.Annotations = map[string]string{SignatureAnnotation: "Uw=="}
			to.manifest(ocispec.MediaTypeImageManifest,
				ocispec.Manifest{Subject: &image, Layers: []ocispec.Descriptor{l}}, "")
		}, []string{"simple-signing P S"}},
		{"strangers", func(to target, image ocispec.Descriptor, tag string) {
			attach(to, image, "", "B1")
			to.manifest(ocispec.MediaTypeImageManifest,
				ocispec.Manifest{Subject: &image, ArtifactType: "application/spdx+json",
					Layers: []ocispec.Descriptor{to.blob("application/spdx+json", []byte("{}"))}}, "")
			to.manifest(ocispec.MediaTypeImageManifest, map[string]any{"subject": image, "layers": "nonsense"}, "")
			to.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Subject: &image,
				Layers: []ocispec.Descriptor{{MediaType: bundleMediaType, Digest: image.Digest,
					Size: verify.MaxBundle + 1}}}, "")
			to.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Subject: &image,
				Layers: []ocispec.Descriptor{{MediaType: bundleMediaType, Digest: "sha256:" +
					"00000000000000000000000000000000" + "00000000000000000000000000000000", Size: 5}}}, "")
			bad := to.blob("x", []byte("P"))
			bad.Annotations = map[string]string{SignatureAnnotation: "not base64!"}
			to.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{bad}}, tag+
				".sig")
		}, []string{"bundle B1 "}},
	} {
		for place, to := range map[string]target{"registry": newTestRegistry(t), "layout": newTestLayout(t)} {
			t.Run(c.name+" in a "+place, func(t *testing.T) {
				image := to.manifest(ocispec.MediaTypeImageManifest,
					ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}, "stable")
				c.setup(to, image, "sha256-"+image.Digest.Encoded())
				found, err := to.open(t, ":stable").Candidates(t.Context(), image.Digest)
				if err != nil {
					t.Fatal(err)
				}
				if got := words(found); !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				for _, f := range found {
					if !strings.HasPrefix(f.From, "sha256:") {
						t.Errorf("found at %q", f.From)
					}
				}
			})
		}
	}
}

func TestCandidatesWithoutReferrersAPI(t *testing.T) {
	r := newTestRegistry(t)
	r.referrers = false
	image := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	tag := "sha256-" + image.Digest.Encoded()
	r.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{attach(r, image, "", "B1")}},
		tag)
	found, err := r.open(t, ":stable").Candidates(t.Context(), image.Digest)
	if got := words(found); err != nil || !slices.Equal(got, []string{"bundle B1 "}) {
		t.Errorf("got %q, %v", got, err)
	}
	// Some registries return the image itself for the tag.
	r.tags[tag] = image.Digest
	if found, err := r.open(t, ":stable").Candidates(t.Context(), image.Digest); err != nil || len(found) != 0 {
		t.Errorf("got %+v, %v", found, err)
	}
}

// A lookup that fails must not look like an unsigned image.
func TestCandidatesTellFailureFromAbsence(t *testing.T) {
	r := newTestRegistry(t)
	image := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	tag := "sha256-" + image.Digest.Encoded()
	ref := attach(r, image, "", "B1")
	attachSig(r, tag+".sig", "P", "S")
	for path, code := range map[string]int{
		"/referrers/":                          403,
		"/manifests/" + tag:                    403,
		"/manifests/" + tag + ".sig":           401,
		"/manifests/" + ref.Digest.String():    403,
		"/blobs/":                              401,
		"/manifests/" + tag + ".sig ":          0, // nothing fails
		"/manifests/" + image.Digest.Encoded(): 0,
	} {
		r.hook = func(w http.ResponseWriter, req *http.Request) bool {
			if code == 0 || !strings.HasSuffix(req.URL.Path, path) &&
				!(strings.HasSuffix(path, "/") && strings.Contains(req.URL.Path, path)) {
				return false
			}
			w.WriteHeader(code)
			return true
		}
		found, err := r.open(t, ":stable").Candidates(t.Context(), image.Digest)
		if code == 0 {
			if err != nil || len(found) != 2 {
				t.Errorf("%s: got %+v, %v", path, found, err)
			}
			continue
		}
		t.Run(path, func(t *testing.T) { wantError(t, err, failure.ErrAuth, "") })
	}
}

// A registry full of other attachments must not hide the signature, and they must not all be fetched.
func TestCandidatesAreBounded(t *testing.T) {
	r := newTestRegistry(t)
	image := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	var list []ocispec.Descriptor
	for i := range 300 {
		d := attach(r, ocispec.Descriptor{Digest: "sha256:0"}, "", fmt.Sprint("report ", i))
		d.Annotations = map[string]string{PredicateAnnotation: "https://cosign.sigstore.dev/attestation/vuln/v1"}
		list = append(list, d)
	}
	signature := attach(r, ocispec.Descriptor{Digest: "sha256:0"}, "", "B1")
	signature.Annotations = map[string]string{PredicateAnnotation: verify.BundlePredicateType}
	list = append(list, signature)
	r.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: list}, "sha256-"+image.Digest.Encoded())
	found, err := r.open(t, ":stable").Candidates(t.Context(), image.Digest)
	if err != nil || len(found) != verify.MaxCandidates || string(found[0].Bundle) != "B1" {
		t.Errorf("%d candidates, %v", len(found), err)
	}
	if n := r.count("GET"); n > 2*verify.MaxCandidates+5 {
		t.Errorf("%d requests", n)
	}
}

// TestWrongSignaturesCost: layers that are missing or wrong count like signatures, so that nobody can have the host
// read a terabyte to find none.
func TestWrongSignaturesCost(t *testing.T) {
	r := newTestRegistry(t)
	image := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "v1")
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Subject: &image}
	for i := range 500 {
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: bundleMediaType, Digest: digest.FromString(fmt.Sprint(i)), Size: verify.MaxBundle,
		})
	}
	for i := range 3 {
		m.Annotations = map[string]string{"number": fmt.Sprint(i)}
		r.manifest(ocispec.MediaTypeImageManifest, m, "")
	}
	found, err := r.open(t, ":v1").Candidates(t.Context(), image.Digest)
	if err != nil || len(found) > 0 {
		t.Errorf("found %v, %v", words(found), err)
	}
	if n := r.count("GET /v2/os/server/blobs/"); n == 0 || n > verify.MaxCandidates {
		t.Errorf("%d layers were asked for", n)
	}
}
