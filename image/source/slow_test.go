package source

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// trickle serves content byte by byte, as long as the client waits.
func trickle(w http.ResponseWriter, req *http.Request, content []byte) {
	for _, b := range content {
		if _, err := w.Write([]byte{b}); err != nil || req.Context().Err() != nil {
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func TestASlowServerIsGivenUpOn(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(100_000))
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		trickle(w, req, r.content[d.Digest])
		return true
	}
	s, err := Open(r.host()+"/os/server:x", Options{PlainHTTP: []string{r.host()}, Stall: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s.resumes, s.pause = 1, time.Millisecond
	_, err = readAll(t, s, d)
	wantError(t, err, ErrUnreachable, "too slowly")
}

// However a server is slow, it cannot hold up a command that reads manifests and signatures.
func TestMetadataHasATime(t *testing.T) {
	r := newTestRegistry(t)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	for n := range 40 {
		attach(r, m, "", fmt.Sprint("bundle ", n))
	}
	r.hook = func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Context().Err() == nil {
			time.Sleep(30 * time.Millisecond)
		}
		return false
	}
	s := r.open(t, ":stable")
	s.budget.left.Store(int64(300 * time.Millisecond))
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err := s.Candidates(t.Context(), m.Digest)
	wantError(t, err, ErrUnreachable, "took too long in total")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	_, err = s.Manifest(t.Context(), m)
	wantError(t, err, ErrUnreachable, "took too long in total")
	_, err = s.Config(t.Context(), m)
	wantError(t, err, ErrUnreachable, "took too long in total")
}

// TestRedirects checks that a registry can redirect to another server, which gets no credentials and whose content
// must have the digest, but not to one without TLS.
func TestRedirects(t *testing.T) {
	r := newUnstarted()
	r.Server = httptest.NewUnstartedServer(r)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	layer := r.blob("x", random(10_000))
	var carried, served string
	wrong := false
	elsewhere := func(w http.ResponseWriter, req *http.Request) {
		carried, served = req.Header.Get("Authorization")+req.Header.Get("Cookie"), req.URL.Path
		content := r.content[layer.Digest]
		if wrong {
			content = random(len(content))
		}
		w.Write(content)
	}
	plain, tls := httptest.NewServer(http.HandlerFunc(elsewhere)), httptest.NewTLSServer(http.HandlerFunc(elsewhere))
	t.Cleanup(plain.Close)
	t.Cleanup(tls.Close)
	greedy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		carried += req.Header.Get("Authorization")
		w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(greedy.Close)
	target := ""
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		if user, _, _ := req.BasicAuth(); user != "alice" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if !strings.Contains(req.URL.Path, "/blobs/") && !strings.HasPrefix(target, "http:") {
			return false
		}
		http.Redirect(w, req, target+"/there", http.StatusTemporaryRedirect)
		return true
	}
	r.StartTLS()
	t.Cleanup(r.Close)
	auth := t.TempDir() + "/auth.json"
	if err := os.WriteFile(auth, []byte(`{"auths":{"`+r.host()+`":{"auth":"YWxpY2U6cHc="}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", auth)
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate())
	pool.AddCert(tls.Certificate())
	open := func() *Source {
		s, err := Open(r.host()+"/os/server:stable", Options{RootCAs: pool})
		if err != nil {
			t.Fatal(err)
		}
		s.resumes = 1
		return s
	}

	target = tls.URL
	if d, err := open().Resolve(t.Context()); err != nil || d.Digest != m.Digest {
		t.Fatalf("logged in: %+v, %v", d, err)
	}
	if _, err := readAll(t, open(), layer); err != nil || served != "/there" {
		t.Errorf("redirected to another host: %v, it served %q", err, served)
	}
	if carried != "" {
		t.Errorf("another host was shown %q", carried)
	}
	wrong = true
	if _, err := readAll(t, open(), layer); err == nil || errors.Is(err, ErrSource) {
		t.Errorf("wrong content from another host: %v", err)
	}

	target = greedy.URL
	_, err := readAll(t, open(), layer)
	wantError(t, err, ErrAuth, "")
	if carried != "" {
		t.Errorf("another host that asked for it was shown %q", carried)
	}

	served, target = "", plain.URL
	_, err = open().Resolve(t.Context())
	wantError(t, err, ErrUnreachable, "without TLS")
	_, err = readAll(t, open(), layer)
	wantError(t, err, ErrUnreachable, "without TLS")
	if served != "" {
		t.Errorf("it asked without TLS for %s", served)
	}
}
