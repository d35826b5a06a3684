package source

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fetcher"
	"github.com/updatectl/updatectl/verify"
)

// TestMain keeps the tests from the credentials of whoever runs them.
func TestMain(m *testing.M) {
	fetcher.Main()
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		os.Setenv(name, "/nonexistent")
	}
	code := m.Run()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != "" // what is fuzzed reads layouts
	if apart = true; code == 0 && fetcher.Possible() && !fuzzing {
		fmt.Println("once more, with a fetcher")
		code = m.Run()
	}
	os.Exit(code)
}

// apart is whether the sources of these tests ask registries in a process of its own. All tests run in both ways.
var apart bool

func TestOpenReadsReferences(t *testing.T) {
	for _, ref := range []string{
		"registry.example.org/os/server:stable", "localhost:5000/os@sha256:" + strings.Repeat("0", 64),
		"registry.example.org/os:1@sha256:" + strings.Repeat("0", 64),
		"oci:/srv/layout", "oci:/srv/layout:stable", "oci:relative/dir:v1.2-3", "oci:/srv/layout@sha256:" +
			strings.Repeat("0", 64), "oci:/srv/with:colon/layout",
		"oci-archive:/srv/os.tar", "oci-archive:/srv/os.tar:stable", "oci-archive:os.tar@sha256:" +
			strings.Repeat("0", 64),
	} {
		if s, err := Open(ref, Options{}); err != nil || s.String() != ref {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{
		"", "debian", "debian:13", "registry.example.org/os", "registry.example.org/OS:stable",
		"registry.example.org/os:no tag",
		"registry.example.org/os@sha256:0", "https://registry.example.org/os:stable", "oci:", "oci::tag",
		"oci:/srv/layout:", "oci:/srv/layout:a b", "oci:/srv/layout@sha256:0", "oci-archive:", "oci-archive::tag",
		"oci-archive:/srv/os.tar:a b",
	} {
		if _, err := Open(ref, Options{}); !errors.Is(err, failure.ErrReference) || errors.Is(err, failure.ErrSource) {
			t.Errorf("%q: got %v, want %v", ref, err, failure.ErrReference)
		}
	}
}

func TestRegistry(t *testing.T) {
	r := newTestRegistry(t)
	layer := r.blob(ocispec.MediaTypeImageLayer, random(3<<20))
	empty := r.blob("text/plain", []byte{})
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{layer}}, "stable")
	for _, ref := range []string{":stable", "@" + m.Digest.String()} {
		s := r.open(t, ref)
		d, err := s.Resolve(t.Context())
		if err != nil || d.Digest != m.Digest || d.Size != m.Size || d.MediaType != m.MediaType {
			t.Fatalf("%s: resolved to %+v, %v", s, d, err)
		}
		content, err := s.Manifest(t.Context(), d)
		if err != nil || !bytes.Equal(content, r.content[m.Digest]) {
			t.Errorf("%s: manifest %q, %v", s, content, err)
		}
		blob, err := readAll(t, s, layer)
		if err != nil || !bytes.Equal(blob, r.content[layer.Digest]) {
			t.Errorf("%s: blob of %d bytes, %v", s, len(blob), err)
		}
		if blob, err := readAll(t, s, empty); err != nil || len(blob) != 0 {
			t.Errorf("%s: empty blob: %q, %v", s, blob, err)
		}
	}
}

// get reads everything from a source, and returns the first error.
func get(t *testing.T, s *Source, layer ocispec.Descriptor) error {
	t.Helper()
	d, err := s.Resolve(t.Context())
	if err != nil {
		return err
	}
	if _, err := s.Manifest(t.Context(), d); err != nil {
		return err
	}
	_, err = readAll(t, s, layer)
	return err
}

func TestRegistryFailures(t *testing.T) {
	const size = 400_000
	onBlob := func(answer func(w http.ResponseWriter, content []byte)) func(*testRegistry) {
		return func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				_, name, ok := strings.Cut(req.URL.Path, "/blobs/")
				if ok {
					answer(w, r.content[digest.Digest(name)])
				}
				return ok
			}
		}
	}
	status := func(code int, on string) func(*testRegistry) {
		return func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.Contains(req.URL.Path, on) {
					return false
				}
				w.WriteHeader(code)
				return true
			}
		}
	}
	for _, c := range []struct {
		name  string
		setup func(*testRegistry)
		want  error
		say   string
	}{
		{"no such tag", func(r *testRegistry) { delete(r.tags, "stable") }, failure.ErrNotFound, "stable"},
		{"no such blob", func(r *testRegistry) {
			for d := range r.content {
				if r.types[d] == "" {
					delete(r.content, d)
				}
			}
		}, failure.ErrNotFound, "404"},
		{"401", status(401, "/manifests/"), failure.ErrAuth, "401"},
		{"403", status(403, "/manifests/"), failure.ErrAuth, "403"},
		{"500", status(500, "/manifests/"), failure.ErrUnreachable, "500"},
		{"401 on a blob", status(401, "/blobs/"), failure.ErrAuth, "401"},
		{"403 on a blob", status(403, "/blobs/"), failure.ErrAuth, "403"},
		{"500 on a blob", status(500, "/blobs/"), failure.ErrUnreachable, "500"},
		{"basic login without credentials", func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(401)
				return true
			}
		}, failure.ErrAuth, "no credentials"},
		{"token server refuses", func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path != "/token" {
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL+`/token",service="s"`)
				}
				w.WriteHeader(401)
				return true
			}
		}, failure.ErrAuth, ""},
		{"wrong content of the same size", onBlob(func(w http.ResponseWriter, content []byte) {
			content = bytes.Clone(content)
			content[size/2] ^= 1
			w.Write(content)
		}), verify.ErrDigest, ""},
		{"longer body, announced", onBlob(func(w http.ResponseWriter, content []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(size+1))
			w.Write(append(bytes.Clone(content), 0))
		}), verify.ErrDigest, "400001 bytes"},
		{"longer body, not announced", onBlob(func(w http.ResponseWriter, content []byte) {
			w.Write(content[:size/2])
			w.(http.Flusher).Flush()
			w.Write(content[size/2:])
			w.Write([]byte{0})
		}), verify.ErrDigest, "longer"},
		{"body cut by the server every time", onBlob(func(w http.ResponseWriter, content []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(content[:size/2])
		}), failure.ErrUnreachable, "stopped after"},
		{"short body, announced as such",
			onBlob(func(w http.ResponseWriter, content []byte) { w.Write(content[:size/2]) }), failure.ErrUnreachable,
			"stopped after"},
		{"silent body", onBlob(func(w http.ResponseWriter, content []byte) {
			w.Write(content[:size/2])
			w.(http.Flusher).Flush()
			time.Sleep(700 * time.Millisecond)
		}), failure.ErrUnreachable, "no data arrived"},
		{"wrong range", onBlob(func(w http.ResponseWriter, content []byte) {
			w.Header().Set("Content-Range", "bytes 399999-399999/400000")
			w.WriteHeader(http.StatusPartialContent)
		}), failure.ErrUnreachable, "range"},
		{"tampered manifest", func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method != http.MethodGet || !strings.Contains(req.URL.Path, "/manifests/") {
					return false
				}
				io.WriteString(w, `{"schemaVersion":2,"evil":true}`)
				return true
			}
		}, nil, ""}, // see below: the class depends on the length
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTestRegistry(t)
			layer := r.blob(ocispec.MediaTypeImageLayer, random(size))
			r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{layer}}, "stable")
			c.setup(r)
			s := r.open(t, ":stable")
			s.resumes = 2
			err := get(t, s, layer)
			if c.want == nil {
				if !errors.Is(err, failure.ErrUnreachable) && !errors.Is(err, verify.ErrDigest) {
					t.Errorf("got %v", err)
				}
				return
			}
			wantError(t, err, c.want, c.say)
			if c.want != verify.ErrDigest && !errors.Is(err, failure.ErrSource) {
				t.Errorf("%v is not %v", err, failure.ErrSource)
			}
			if c.want == verify.ErrDigest && errors.Is(err, failure.ErrSource) {
				t.Errorf("%v blames the source, not the content", err)
			}
		})
	}
}

func TestRegistryTamperedManifest(t *testing.T) {
	r := newTestRegistry(t)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	for _, change := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func(b []byte) []byte { return append(b, ' ') },
	} {
		evil := change(bytes.Clone(r.content[m.Digest]))
		r.hook = func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodGet {
				return false
			}
			w.Header().Set("Content-Type", m.MediaType)
			w.Write(evil)
			return true
		}
		_, err := r.open(t, ":stable").Manifest(t.Context(), m)
		wantError(t, err, verify.ErrDigest, "")
	}
	_, err := r.open(t, ":stable").Manifest(t.Context(),
		ocispec.Descriptor{Digest: m.Digest, Size: verify.MaxManifest + 1})
	wantError(t, err, verify.ErrMalformed, "more than")
	_, err = r.open(t, ":stable").Manifest(t.Context(), ocispec.Descriptor{Digest: "sha512:00", Size: 1})
	wantError(t, err, verify.ErrMalformed, "")
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	s, err := Open(host+"/os/server:stable", Options{Apart: apart, PlainHTTP: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Resolve(t.Context())
	wantError(t, err, failure.ErrUnreachable, "connection refused")
	_, err = s.Candidates(t.Context(), digest.FromString("x"))
	wantError(t, err, failure.ErrUnreachable, "connection refused")
}

func TestTLS(t *testing.T) {
	r := newUnstarted()
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ErrorLog = nil
	r.StartTLS()
	t.Cleanup(r.Close)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	resolve := func(o Options) (ocispec.Descriptor, error) {
		s, err := Open(r.host()+"/os/server:stable", o)
		if err != nil {
			t.Fatal(err)
		}
		return s.Resolve(t.Context())
	}
	_, err := resolve(Options{Apart: apart})
	wantError(t, err, failure.ErrUnreachable, "certificate")
	_, err = resolve(Options{Apart: apart, PlainHTTP: []string{r.host()}})
	wantError(t, err, failure.ErrUnreachable, "")
	if d, err := resolve(Options{Apart: apart, Authorities: authorities(r.Server)}); err != nil || d.Digest != m.Digest {
		t.Errorf("trusted: %+v, %v", d, err)
	}
	plain := newTestRegistry(t)
	s, err := Open(plain.host()+"/os/server:stable", Options{Apart: apart})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Resolve(t.Context())
	wantError(t, err, failure.ErrNoTLS, "plain HTTP")
	wantError(t, err, failure.ErrUnreachable, "")
}

func TestTransientErrorsAreRetried(t *testing.T) {
	r := newTestRegistry(t)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	var failures atomic.Int32
	failures.Store(2)
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		if failures.Add(-1) < 0 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	s := r.open(t, ":stable")
	if d, err := s.Resolve(t.Context()); err != nil || d.Digest != m.Digest {
		t.Fatalf("got %+v, %v", d, err)
	}
	failures.Store(1)
	if _, err := s.Manifest(t.Context(), m); err != nil {
		t.Error(err)
	}
}

func TestACutBlobIsContinued(t *testing.T) {
	for _, c := range []struct {
		name   string
		ranges bool
	}{{"with ranges", true}, {"without", false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newTestRegistry(t)
			d := r.blob("x", random(1<<20))
			var served atomic.Int64
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				content, start := r.content[d.Digest], 0
				if span := req.Header.Get("Range"); c.ranges && span != "" {
					fmt.Sscanf(span, "bytes=%d-", &start)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
					w.Header().Set("Content-Length", fmt.Sprint(len(content)-start))
					w.WriteHeader(http.StatusPartialContent)
				} else {
					w.Header().Set("Content-Length", fmt.Sprint(len(content)))
				}
				// Each connection breaks after another 300 KB.
				end := min(len(content), int(served.Add(300_000)))
				w.Write(content[start:end])
				return true
			}
			got, err := readAll(t, r.open(t, ":x"), d)
			if err != nil || !bytes.Equal(got, r.content[d.Digest]) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if n := r.count("GET"); n != 4 {
				t.Errorf("%d requests, want 4", n)
			}
		})
	}
}

// cutting serves content with ranges. Each connection breaks after so many bytes. It returns what was sent in total.
func cutting(r *testRegistry, d ocispec.Descriptor, after int) (sent, cuts *atomic.Int64) {
	sent, cuts = new(atomic.Int64), new(atomic.Int64)
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		content, start := r.content[d.Digest], 0
		if span := req.Header.Get("Range"); span != "" {
			fmt.Sscanf(span, "bytes=%d-", &start)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)-start))
		if start > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		part := content[start:min(len(content), start+after)]
		if start+len(part) < len(content) {
			cuts.Add(1)
		}
		n, _ := w.Write(part)
		sent.Add(int64(n))
		return true
	}
	return sent, cuts
}

// TestACutNetworkCostsLittle: attempts are counted from the last progress, so a blob arrives however often the network
// is cut, and nothing is sent twice.
func TestACutNetworkCostsLittle(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(201*progress))
	sent, cuts := cutting(r, d, progress)
	s := r.open(t, ":x")
	got, err := readAll(t, s, d)
	if err != nil || !bytes.Equal(got, r.content[d.Digest]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if cuts.Load() != 200 || sent.Load() > d.Size*105/100 {
		t.Errorf("%d cuts, %d bytes were sent for %d", cuts.Load(), sent.Load(), d.Size)
	}
}

// TestANetworkWithoutProgress: a server that sends next to nothing at a time is given up.
func TestANetworkWithoutProgress(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(4*progress))
	_, cuts := cutting(r, d, progress/10)
	s := r.open(t, ":x")
	_, err := readAll(t, s, d)
	wantError(t, err, failure.ErrUnreachable, fmt.Sprintf("the transfer stopped after %d of", 6*(progress/10)))
	if cuts.Load() != resumes+1 {
		t.Errorf("%d connections, want %d", cuts.Load(), resumes+1)
	}
}

// TestWhatIsSentAgainIsNoProgress: a server without ranges that breaks its connections is given up, although it sends
// much each time.
func TestWhatIsSentAgainIsNoProgress(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(100*progress))
	var served, sent atomic.Int64
	r.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(d.Size))
		n, _ := w.Write(r.content[d.Digest][:served.Add(2*progress)]) // each time two steps further
		sent.Add(int64(n))
		return true
	}
	_, err := readAll(t, r.open(t, ":x"), d)
	wantError(t, err, failure.ErrUnreachable, "the transfer stopped after")
	if sent.Load() > 10*d.Size {
		t.Errorf("%d bytes were sent for %d", sent.Load(), d.Size)
	}
}

// TestReconnectingHasATime: connections that break do not prolong the time that fetching has in total.
func TestReconnectingHasATime(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(201*progress))
	_, cuts := cutting(r, d, progress)
	s := r.open(t, ":x")
	b, err := s.newBlob(t.Context(), d, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := io.CopyN(io.Discard, b, 3*progress); err != nil {
		t.Fatal(err)
	}
	before := cuts.Load()
	s.until = time.Now().Add(-time.Second)
	_, err = io.Copy(io.Discard, b)
	wantError(t, err, failure.ErrUnreachable, "fetching took too long in total")
	if again := cuts.Load() - before; again != 0 {
		t.Errorf("%d connections after the end", again)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	r := newTestRegistry(t)
	d := r.blob("x", random(100_000))
	hang := make(chan struct{})
	defer close(hang)
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Content-Length", "100000")
		w.Write(r.content[d.Digest][:1000])
		w.(http.Flusher).Flush()
		<-hang
		return true
	}
	s, err := Open(r.host()+"/os/server:x", Options{Apart: apart, PlainHTTP: []string{r.host()}, Stall: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	body, err := s.Blob(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) || errors.Is(err, failure.ErrSource) {
		t.Errorf("got %v", err)
	}
}

// Every answer is watched, not only those with blobs.
func TestASilentServerIsGivenUpOn(t *testing.T) {
	r := newTestRegistry(t)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	for _, path := range []string{"/referrers/", "/manifests/sha256:"} {
		done := make(chan struct{})
		r.hook = func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, path) {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			<-done
			return true
		}
		s := r.open(t, ":stable")
		s.resumes = 1
		_, err := s.Candidates(t.Context(), m.Digest)
		if err == nil {
			_, err = s.Manifest(t.Context(), m)
		}
		close(done)
		t.Run(path, func(t *testing.T) { wantError(t, err, failure.ErrUnreachable, "no data arrived") })
	}
}

// Content can have a sha256 or a sha512 digest, a manifest only sha256.
func TestDigestAlgorithms(t *testing.T) {
	l := newTestLayout(t)
	content := []byte("content")
	path := filepath.Join(l.dir, "blobs/sha512", digest.SHA512.FromBytes(content).Encoded())
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{Digest: digest.SHA512.FromBytes(content), Size: int64(len(content))}
	if got, err := readAll(t, l.open(t, ":x"), d); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q, %v", got, err)
	}
	_, err := l.open(t, ":x").Manifest(t.Context(), d)
	wantError(t, err, verify.ErrMalformed, "is not sha256")
	if err := os.WriteFile(path, []byte("Content"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = readAll(t, l.open(t, ":x"), d)
	wantError(t, err, verify.ErrDigest, "sha512:")
	for _, bad := range []digest.Digest{"md5:d41d8cd98f00b204e9800998ecf8427e", digest.SHA384.FromBytes(content),
		"blake3:00", "SHA256:" + digest.Digest(strings.Repeat("0", 64)), ""} {
		for _, ask := range []func(*Source) error{
			func(s *Source) error { _, err := s.Manifest(t.Context(), ocispec.Descriptor{Digest: bad}); return err },
			func(s *Source) error { _, err := s.Blob(t.Context(), ocispec.Descriptor{Digest: bad}); return err },
			func(s *Source) error { _, err := s.Config(t.Context(), ocispec.Descriptor{Digest: bad}); return err },
		} {
			wantError(t, ask(l.open(t, ":x")), verify.ErrMalformed, "neither sha256 nor sha512")
		}
	}
}

// The error for a path without "oci:" says what was meant.
func TestDidYouMean(t *testing.T) {
	for reference, want := range map[string]string{
		"layout:arm":                "did you mean oci:layout:arm?",
		"layout":                    "did you mean oci:layout?",
		"./images/os:stable":        "did you mean oci:./images/os:stable?",
		"/srv/layout@sha256:":       `invalid registry ""`,
		"/srv/layout":               "did you mean oci:/srv/layout?",
		"../os.tar:v1":              "did you mean oci-archive:../os.tar:v1?",
		"layout:bad tag":            "missing registry",
		"not a reference":           "missing registry",
		"":                          "missing registry",
		"registry.example.org/OS:1": `invalid repository "OS"`,
	} {
		_, err := Open(reference, Options{})
		if !errors.Is(err, failure.ErrReference) || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "invalid reference") {
			t.Errorf("%q: got %v, want %q", reference, err, want)
		}
	}
}

func TestWithTag(t *testing.T) {
	for reference, want := range map[string]string{
		"registry.example.org:5000/os":                              "registry.example.org:5000/os:2",
		"registry.example.org/os:1":                                 "registry.example.org/os:2",
		"registry.example.org/os@sha256:" + strings.Repeat("0", 64): "registry.example.org/os:2",
		"oci:layout":             "oci:layout:2",
		"oci:/srv/layout:1":      "oci:/srv/layout:2",
		"oci-archive:os.tar":     "oci-archive:os.tar:2",
		"oci-archive:os.tar:1":   "oci-archive:os.tar:2",
		"oci-archive:/srv/a:b/c": "oci-archive:/srv/a:b/c:2",
	} {
		if got := WithTag(reference, "2"); got != want {
			t.Errorf("%s: got %s, want %s", reference, got, want)
		}
	}
	if got := WithTag("oci:layout", "not a tag"); got != "" {
		t.Errorf("got %q", got)
	}
}
