package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
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
	s, err := Open(r.host()+"/os/server:x", Options{
		Apart: apart, PlainHTTP: []string{r.host()}, Stall: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.resumes, s.pause = 1, time.Millisecond
	_, err = readAll(t, s, d)
	wantError(t, err, failure.ErrUnreachable, "too slowly")
}

// TestASlowMirrorIsLeft: the rest of a blob comes from a faster place, and the next blob from there. Where all places
// are slow, or do not answer, the blob arrives all the same.
func TestASlowMirrorIsLeft(t *testing.T) {
	slowly := func(r *testRegistry, content []byte) {
		r.hook = func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/blobs/") {
				return false
			}
			from := 0
			fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from)
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
				w.WriteHeader(http.StatusPartialContent)
			}
			for part := range slices.Chunk(content[from:], 500) {
				if _, err := w.Write(part); err != nil || req.Context().Err() != nil {
					return true
				}
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond) // 25 KB per second
			}
			return true
		}
	}
	for _, c := range []struct {
		name       string
		slow, gone []int
		size, last int // the place that sends the end
		skipped    int
	}{
		{"the first", []int{0}, nil, 400_000, 1, 1},
		{"and the second", []int{0, 1}, nil, 400_000, 2, 2},
		{"all", []int{0, 1, 2}, nil, 40_000, 2, 2},
		{"the others do not answer", []int{0}, []int{1, 2}, 40_000, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMirrored(t, 3)
			content := random(c.size)
			var layer ocispec.Descriptor
			for i, r := range m.registries {
				layer = r.blob("x", content)
				if slices.Contains(c.slow, i) {
					slowly(r, content)
				}
				if slices.Contains(c.gone, i) {
					r.hook = func(w http.ResponseWriter, req *http.Request) bool { w.WriteHeader(500); return true }
				}
			}
			s := m.open(t)
			got, err := readAll(t, s, layer)
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d of %d bytes, %v", len(got), len(content), err)
			}
			if len(m.warnings) != c.skipped {
				t.Errorf("warnings %q", m.warnings)
			}
			if m.registries[c.last].count("GET /v2/os/server/blobs/") == 0 {
				t.Errorf("place %d was not asked", c.last)
			}
			slowly := "less than 64 KiB arrive per second"
			if len(c.gone) == 0 && !strings.Contains(strings.Join(m.warnings, "\n"), slowly) {
				t.Errorf("warnings %q", m.warnings)
			}
		})
	}
}

// TestFetchingHasATime: layers have one time in total, and a rate that is configured.
func TestFetchingHasATime(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(100_000))
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		trickle(w, req, r.content[d.Digest])
		return true
	}
	for _, c := range []struct {
		o    Options
		says string
	}{
		{Options{Stall: 100 * time.Millisecond, Rate: 10}, ""},
		{Options{Stall: 100 * time.Millisecond, Rate: 10, Total: 500 * time.Millisecond}, "too long in total"},
		{Options{Stall: 100 * time.Millisecond}, "too slowly"},
	} {
		c.o.PlainHTTP, c.o.Apart = []string{r.host()}, apart
		s, err := Open(r.host()+"/os/server:x", c.o)
		if err != nil {
			t.Fatal(err)
		}
		s.resumes, s.pause = 1, time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		b, err := s.Blob(ctx, d)
		if err == nil {
			_, err = io.Copy(io.Discard, b)
			b.Close()
		}
		if cancel(); c.says == "" && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a slow server is left: %v", err)
		} else if c.says != "" {
			wantError(t, err, failure.ErrUnreachable, c.says)
		}
	}
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
	if _, err := s.Resolve(t.Context()); err != nil { // starts the fetcher, if there is one
		t.Fatal(err)
	}
	s.budget.left.Store(int64(300 * time.Millisecond))
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err := s.Candidates(t.Context(), m.Digest)
	wantError(t, err, failure.ErrUnreachable, "took too long in total")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	_, err = s.Manifest(t.Context(), m)
	wantError(t, err, failure.ErrUnreachable, "took too long in total")
	_, err = s.Config(t.Context(), m)
	wantError(t, err, failure.ErrUnreachable, "took too long in total")
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
	open := func() *Source {
		s, err := Open(r.host()+"/os/server:stable", Options{Apart: apart, Authorities: authorities(r.Server, tls)})
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
	if _, err := readAll(t, open(), layer); err == nil || errors.Is(err, failure.ErrSource) {
		t.Errorf("wrong content from another host: %v", err)
	}

	target = greedy.URL
	_, err := readAll(t, open(), layer)
	wantError(t, err, failure.ErrAuth, "")
	if carried != "" {
		t.Errorf("another host that asked for it was shown %q", carried)
	}

	served, target = "", plain.URL
	_, err = open().Resolve(t.Context())
	wantError(t, err, failure.ErrUnreachable, "without TLS")
	_, err = readAll(t, open(), layer)
	wantError(t, err, failure.ErrUnreachable, "without TLS")
	if served != "" {
		t.Errorf("it asked without TLS for %s", served)
	}
}
