package source

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testRegistry implements the part of the distribution API that a reader needs, with a hook to misbehave.
type testRegistry struct {
	*httptest.Server
	mu        sync.Mutex
	content   map[digest.Digest][]byte
	types     map[digest.Digest]string // of manifests
	tags      map[string]digest.Digest
	referrers bool                                              // has the referrers API
	hook      func(w http.ResponseWriter, r *http.Request) bool // returns true if it has answered
	requests  []string
}

func newTestRegistry(t testing.TB) *testRegistry {
	r := newUnstarted()
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func newUnstarted() *testRegistry {
	return &testRegistry{
		content: map[digest.Digest][]byte{}, types: map[digest.Digest]string{},
		tags: map[string]digest.Digest{}, referrers: true,
	}
}

func (r *testRegistry) host() string {
	_, host, _ := strings.Cut(r.URL, "://")
	return host
}

// blob adds a blob.
func (r *testRegistry) blob(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	r.content[d] = content
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// manifest adds a manifest or index, under a tag unless that is empty.
func (r *testRegistry) manifest(mediaType string, v any, tag string) ocispec.Descriptor {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := r.blob(mediaType, content)
	r.types[d.Digest] = mediaType
	if tag != "" {
		r.tags[tag] = d.Digest
	}
	return d
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	hook := r.hook
	r.mu.Unlock()
	if hook != nil && hook(w, req) {
		return
	}
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/os/server/")
	kind, name, _ := strings.Cut(path, "/")
	switch {
	case !ok:
		http.NotFound(w, req)
	case kind == "referrers" && r.referrers:
		r.serveReferrers(w, digest.Digest(name))
	case kind == "manifests":
		r.serveManifest(w, req, name)
	case kind == "blobs" && r.content[digest.Digest(name)] != nil:
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(r.content[digest.Digest(name)]))
	default:
		http.NotFound(w, req)
	}
}

func (r *testRegistry) serveManifest(w http.ResponseWriter, req *http.Request, name string) {
	d, ok := r.tags[name]
	if !ok {
		d = digest.Digest(name)
	}
	if r.types[d] == "" {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", r.types[d])
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", fmt.Sprint(len(r.content[d])))
	if req.Method != http.MethodHead {
		w.Write(r.content[d])
	}
}

func (r *testRegistry) serveReferrers(w http.ResponseWriter, subject digest.Digest) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	for d, mediaType := range r.types {
		var m ocispec.Manifest
		if json.Unmarshal(r.content[d], &m) == nil && m.Subject != nil && m.Subject.Digest == subject {
			index.Manifests = append(index.Manifests,
				ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(r.content[d]))})
		}
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	json.NewEncoder(w).Encode(index)
}

// count returns how many requests began like this.
func (r *testRegistry) count(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, request := range r.requests {
		if strings.HasPrefix(request, prefix) {
			n++
		}
	}
	return n
}

// open opens a reference in the registry, with short timeouts.
func (r *testRegistry) open(t *testing.T, suffix string) *Source {
	t.Helper()
	s, err := Open(r.host()+"/os/server"+suffix, Options{
		Apart: apart, PlainHTTP: []string{r.host()}, Stall: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.pause = time.Millisecond
	return s
}

// authorities returns the certificates of servers, as PEM.
func authorities(servers ...*httptest.Server) []byte {
	var all []byte
	for _, s := range servers {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})...)
	}
	return all
}

// random returns random content.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// readAll reads a blob to its end.
func readAll(t *testing.T, s *Source, d ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	body, err := s.Blob(t.Context(), d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// wantError checks the class of an error, that it is one of a source, and its text.
func wantError(t *testing.T, err, want error, say string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), say) {
		t.Errorf("got %v, want %v with %q", err, want, say)
	}
}
