package publish

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/packing"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

var plain = Options{PlainHTTP: true}

// recorder is a registry that records what is written to it, in order, and can refuse it.
type recorder struct {
	registry http.Handler
	refuse   func(r *http.Request) int // returns the status to answer with, or 0

	mu     sync.Mutex
	writes []string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.refuse != nil {
		if status := r.refuse(req); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	if req.Method == http.MethodPut {
		r.mu.Lock()
		r.writes = append(r.writes, req.URL.Path)
		r.mu.Unlock()
	}
	r.registry.ServeHTTP(w, req)
}

func startRegistry(t *testing.T, refuse func(*http.Request) int) (*recorder, string) {
	t.Helper()
	r := &recorder{registry: registry.New(registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithReferrersSupport(true)), refuse: refuse}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return r, strings.TrimPrefix(s.URL, "http://") + "/os/server:stable"
}

func newSeal(t *testing.T, form verify.Form) (Seal, verify.Key) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	key, err := sign.PublicKey("release.pub", private)
	check(t, err)
	return Seal{Signer: private, Form: form, Identity: "registry.example.org/os", Time: longAgo}, key
}

// signedLayout packs and signs an image.
func signedLayout(t *testing.T) (reference string, key verify.Key) {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "layout")
	pack(t, packing.Recipe{Tree: makeTree(t), Layout: layout})
	reference = "oci:" + layout + ":test"
	seal, key := newSeal(t, verify.FormBundle)
	_, err := Sign(context.Background(), reference, seal, plain)
	check(t, err)
	seal.Form = verify.FormSimple
	_, err = Sign(context.Background(), reference, seal, plain)
	check(t, err)
	return reference, key
}

func noProgress(ocispec.Descriptor) {}

// In the middle of a push, a host finds the old image or nothing, but not a new one without its signatures.
func TestTagMovesLast(t *testing.T) {
	from, key := signedLayout(t)
	reg, to := startRegistry(t, nil)
	p, err := Push(context.Background(), from, to, plain, noProgress)
	check(t, err)
	tag := slices.Index(reg.writes, "/v2/os/server/manifests/stable")
	if p.Signatures != 2 || tag != len(reg.writes)-1 {
		t.Errorf("%d signatures, tag written as number %d of %v", p.Signatures, tag, reg.writes)
	}
	_, err = Inspect(context.Background(), to, []verify.Key{key}, plain)
	check(t, err)
}

func TestTagStaysWhenSignaturesFail(t *testing.T) {
	from, _ := signedLayout(t)
	reg, to := startRegistry(t, func(r *http.Request) int {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, ".sig") {
			return http.StatusBadRequest
		}
		return 0
	})
	_, err := Push(context.Background(), from, to, plain, noProgress)
	if !errors.Is(err, failure.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if slices.Contains(reg.writes, "/v2/os/server/manifests/stable") {
		t.Error("the tag was moved")
	}
}

// An index is pushed with its images and their signatures.
func TestIndex(t *testing.T) {
	ctx := context.Background()
	layout := filepath.Join(t.TempDir(), "layout")
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, arch := range []string{"amd64", "arm64"} {
		p := pack(t, packing.Recipe{Tree: makeTree(t), Layout: layout, Architecture: arch})
		d := p.Manifest
		d.Annotations, d.Platform = nil, &p.Platform
		index.Manifests = append(index.Manifests, d)
	}
	putManifest(t, layout, "all", ocispec.MediaTypeImageIndex, index)

	seal, key := newSeal(t, verify.FormBundle)
	from := "oci:" + layout
	for _, reference := range []string{from + ":all", from + "@" + index.Manifests[1].Digest.String()} {
		_, err := Sign(ctx, reference, seal, plain)
		check(t, err)
	}
	_, to := startRegistry(t, nil)
	p, err := Push(ctx, from+":all", to, plain, noProgress)
	check(t, err)
	if p.Signatures != 2 {
		t.Errorf("%d signatures were copied", p.Signatures)
	}
	for _, reference := range []string{to, strings.TrimSuffix(to, ":stable") + "@" +
		index.Manifests[1].Digest.String()} {
		r, err := Inspect(ctx, reference, []verify.Key{key}, plain)
		check(t, err)
		if len(r.Signatures) != 1 || !r.Signatures[0].Verified || r.Signatures[0].Signer != "release.pub" {
			t.Errorf("%s: %+v", reference, r.Signatures)
		}
	}
	r, err := Inspect(ctx, to, nil, plain)
	check(t, err)
	if len(r.Images) != 2 || r.Images[1].Platform != "linux/arm64" || r.Signatures[0].Verified {
		t.Errorf("inspected %+v", r)
	}
}

// What hosts would refuse is not signed.
func TestSignRefusesMalformed(t *testing.T) {
	ctx := context.Background()
	layout := filepath.Join(t.TempDir(), "layout")
	putManifest(t, layout, "both", ocispec.MediaTypeImageManifest, map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": map[string]any{}, "layers": []any{},
		"manifests": []any{},
	})
	seal, _ := newSeal(t, verify.FormBundle)
	_, err := Sign(ctx, "oci:"+layout+":both", seal, plain)
	if !errors.Is(err, verify.ErrMalformed) {
		t.Errorf("got %v", err)
	}
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(layout, "index.json"))
	check(t, err)
	check(t, json.Unmarshal(data, &index))
	if len(index.Manifests) != 1 {
		t.Errorf("something was attached: %+v", index.Manifests)
	}
}

func TestFailuresAreSorted(t *testing.T) {
	from, _ := signedLayout(t)
	answer := func(status int) func(*http.Request) int {
		return func(r *http.Request) int {
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				return 0
			}
			return status
		}
	}
	tests := []struct {
		name   string
		status int
		err    error
	}{
		{"not allowed", http.StatusForbidden, failure.ErrAuth},
		{"who are you", http.StatusUnauthorized, failure.ErrAuth},
		{"broken", http.StatusBadRequest, failure.ErrUnreachable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, to := startRegistry(t, answer(test.status))
			if _, err := Push(context.Background(), from, to, plain, noProgress); !errors.Is(err, test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
		})
	}
	t.Run("no tag to push to", func(t *testing.T) {
		_, to := startRegistry(t, nil)
		for _, bad := range []string{strings.TrimSuffix(to, ":stable"), strings.TrimSuffix(to, ":stable") +
			"@sha256:" + strings.Repeat("0", 64), "oci:" + t.TempDir()} {
			if _, err := Push(context.Background(), from, bad, plain, noProgress); !errors.Is(err,
				failure.ErrReference) {
				t.Errorf("%s: %v", bad, err)
			}
		}
	})
}

// TestLayoutOfOddFiles: a layout with a FIFO in the place of a file is not opened, neither for reading nor for writing.
func TestLayoutOfOddFiles(t *testing.T) {
	for _, name := range []string{"index.json", "oci-layout", "blobs/sha256/*"} {
		reference, _ := signedLayout(t)
		dir, _ := SplitLayout(reference)
		found, err := filepath.Glob(filepath.Join(dir, name))
		check(t, err)
		check(t, os.Remove(found[0]))
		check(t, unix.Mkfifo(found[0], 0o600))
		refused := make(chan error, 1)
		go func() {
			_, err := openPlace(reference, Options{})
			refused <- err
		}()
		select {
		case err := <-refused:
			if !errors.Is(err, durable.ErrNotRegular) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it hangs", name)
		}
	}
}

func TestSplitLayout(t *testing.T) {
	tests := []struct{ reference, dir, tag string }{
		{"dir", "dir", ""},
		{"oci:dir", "dir", ""},
		{"oci:/a/b:v1", "/a/b", "v1"},
		{"./a:b/c", "./a:b/c", ""},
		{"a:b/c:v1", "a:b/c", "v1"},
		{"dir@sha256:00", "dir", "sha256:00"},
	}
	for _, test := range tests {
		if dir, tag := SplitLayout(test.reference); dir != test.dir || tag != test.tag {
			t.Errorf("%s: %q and %q", test.reference, dir, tag)
		}
	}
}

// The credentials of docker and podman are used for writing.
func TestCredentials(t *testing.T) {
	from, _ := signedLayout(t)
	home := t.TempDir()
	for _, name := range []string{"XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	reg, to := startRegistry(t, nil)
	inner := reg.registry
	reg.registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, word, _ := r.BasicAuth(); user != "ci" || word != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	if _, err := Push(context.Background(), from, to, plain, noProgress); !errors.Is(err, failure.ErrAuth) {
		t.Errorf("without credentials: %v", err)
	}
	host, _, _ := strings.Cut(to, "/")
	auth := `{"auths":{"` + host + `":{"auth":"Y2k6c2VjcmV0"}}}`
	for _, file := range []string{".config/containers/auth.json", ".docker/config.json"} {
		path := filepath.Join(home, file)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, []byte(auth), 0o600))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := Push(ctx, from, to, plain, noProgress)
		cancel()
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		check(t, os.Remove(path))
	}
}

// TestDeafRegistry: a push ends with an error when the registry stops reading the blob.
func TestDeafRegistry(t *testing.T) {
	root := makeTree(t)
	random := make([]byte, 32<<20)
	_, err := rand.Read(random)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(root, "usr/big"), random, 0o644))
	layout := filepath.Join(t.TempDir(), "layout")
	pack(t, packing.Recipe{Tree: root, Layout: layout, Compression: "none"})
	done := make(chan struct{})
	deaf := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.Method {
		case http.MethodPost:
			w.Header().Set("Location", "/upload")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut, http.MethodPatch:
			<-done
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(deaf.Close)
	t.Cleanup(func() { close(done) }) // first: Close waits for all requests
	to := strings.TrimPrefix(deaf.URL, "http://") + "/os/server:stable"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = Push(ctx, "oci:"+layout+":test", to, Options{PlainHTTP: true, stall: 50 * time.Millisecond}, noProgress)
	if !errors.Is(err, failure.ErrUnreachable) || ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
}

// TestSignByTag: what a registry serves under a tag may be anything, so it is not signed. By its digest it is.
func TestSignByTag(t *testing.T) {
	ctx := context.Background()
	layout := filepath.Join(t.TempDir(), "layout")
	p := pack(t, packing.Recipe{Tree: makeTree(t), Layout: layout})
	_, to := startRegistry(t, nil)
	_, err := Push(ctx, "oci:"+layout+":test", to, plain, noProgress)
	check(t, err)
	seal, _ := newSeal(t, verify.FormBundle)
	if _, err := Sign(ctx, to, seal, plain); !errors.Is(err, ErrByTag) {
		t.Errorf("%s: %v", to, err)
	}
	r, err := Inspect(ctx, to, nil, plain)
	check(t, err)
	if len(r.Signatures) > 0 {
		t.Errorf("it was signed: %+v", r.Signatures)
	}
	byDigest := strings.TrimSuffix(to, ":stable") + "@" + p.Manifest.Digest.String()
	done, err := Sign(ctx, byDigest, seal, plain)
	check(t, err)
	if done.Image.Digest != p.Manifest.Digest {
		t.Errorf("signed %s", done.Image.Digest)
	}
}
