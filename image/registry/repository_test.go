package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
)

// testRegistry is a registry with one manifest, and a hook to answer otherwise.
type testRegistry struct {
	*httptest.Server
	digest digest.Digest
	hook   func(w http.ResponseWriter, r *http.Request) bool // returns true if it has answered
}

func newTestRegistry(t *testing.T) *testRegistry {
	manifest := []byte("{}")
	r := &testRegistry{digest: digest.FromBytes(manifest)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.hook != nil && r.hook(w, req) {
			return
		}
		if req.URL.Path != "/v2/os/server/manifests/stable" {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", r.digest.String())
		w.Write(manifest)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) host() string { return strings.TrimPrefix(r.URL, "http://") }

// open opens the repository with the manifest.
func (r *testRegistry) open(t *testing.T) *Repository {
	t.Helper()
	ref := registry.Reference{Registry: r.host(), Repository: "os/server", Reference: "stable"}
	repository, err := New(ref, Options{PlainHTTP: true, Stall: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return repository
}

// wantError checks the class of an error and its text.
func wantError(t *testing.T, err, want error, say string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), say) {
		t.Errorf("got %v, want %v with %q", err, want, say)
	}
}
