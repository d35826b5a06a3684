package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// mirrored is an image in several registries, which are asked in order.
type mirrored struct {
	registries []*testRegistry
	layer      ocispec.Descriptor
	image      ocispec.Descriptor
	warnings   []string
}

func newMirrored(t *testing.T, n int) *mirrored {
	m := &mirrored{}
	content := random(400_000)
	for range n {
		r := newTestRegistry(t)
		m.registries = append(m.registries, r)
		m.layer = r.blob(ocispec.MediaTypeImageLayer, content)
		m.image = r.manifest(ocispec.MediaTypeImageManifest,
			ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{m.layer}},
			"stable")
	}
	return m
}

// open opens the image at the first registry and its mirrors, with short timeouts.
func (m *mirrored) open(t *testing.T) *Source { return m.openAt(t, ":stable") }

func (m *mirrored) openAt(t *testing.T, suffix string) *Source {
	t.Helper()
	o := Options{Apart: apart, Stall: 300 * time.Millisecond}
	o.Warn = func(err error) { m.warnings = append(m.warnings, err.Error()) }
	for i, r := range m.registries {
		o.PlainHTTP = append(o.PlainHTTP, r.host())
		if i > 0 {
			o.Mirrors = append(o.Mirrors, r.host()+"/os/server:stable")
		}
	}
	s, err := Open(m.registries[0].host()+"/os/server"+suffix, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(s.mirrors, s) {
		p.pause, p.resumes = time.Millisecond, 1
	}
	return s
}

// serveBlobs makes a registry answer requests for blobs like this.
func (r *testRegistry) serveBlobs(answer func(w http.ResponseWriter, req *http.Request, content []byte)) {
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		_, name, ok := strings.Cut(req.URL.Path, "/blobs/")
		if ok {
			answer(w, req, r.content[digest.Digest(name)])
		}
		return ok
	}
}

func tamper(w http.ResponseWriter, _ *http.Request, content []byte) {
	content = bytes.Clone(content)
	content[len(content)/2] ^= 1
	w.Write(content)
}

// halve sends only the first half of everything.
func halve(w http.ResponseWriter, req *http.Request, content []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	if req.Header.Get("Range") == "" {
		w.Write(content[:len(content)/2])
	}
}

// take reads all of an image, and reads a blob again as often as the source says that this may help.
func (m *mirrored) take(t *testing.T, s *Source) error {
	t.Helper()
	d, err := s.Resolve(t.Context())
	if err != nil {
		return err
	}
	if d.Digest != m.image.Digest {
		t.Errorf("resolved to %s", d.Digest)
	}
	if _, err := s.Manifest(t.Context(), d); err != nil {
		return err
	}
	for range len(m.registries) {
		_, err = readAll(t, s, m.layer)
		if !errors.Is(err, ErrElsewhere) {
			break
		}
	}
	if _, err := s.Config(t.Context(), m.layer); err != nil {
		return err
	}
	return err
}

func TestTheNextPlaceServes(t *testing.T) {
	status := func(code int) func(*testRegistry) {
		return func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool { w.WriteHeader(code); return true }
		}
	}
	for name, spoil := range map[string]func(*testRegistry){
		"down":        func(r *testRegistry) { r.Close() },
		"500":         status(500),
		"401":         status(401),
		"no such tag": func(r *testRegistry) { delete(r.tags, "stable") },
		"no blobs": func(r *testRegistry) {
			r.serveBlobs(func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(404) })
		},
		"blobs refused": func(r *testRegistry) {
			r.serveBlobs(func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(403) })
		},
		"cut blobs": func(r *testRegistry) { r.serveBlobs(halve) },
		"tampered":  func(r *testRegistry) { r.serveBlobs(tamper) },
		"longer": func(r *testRegistry) {
			r.serveBlobs(func(w http.ResponseWriter, _ *http.Request,
				content []byte) {
				w.Write(content)
				w.Write([]byte{0})
			})
		},
		"tampered manifest": func(r *testRegistry) {
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method != http.MethodGet || !strings.Contains(req.URL.Path, "/manifests/") {
					return false
				}
				io.WriteString(w, strings.Repeat("x", 300))
				return true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirrored(t, 2)
			spoil(m.registries[0])
			if err := m.take(t, m.open(t)); err != nil {
				t.Error(err)
			}
			if len(m.warnings) == 0 || !strings.HasPrefix(m.warnings[0], m.registries[0].host()) ||
				!strings.Contains(m.warnings[0], "skipped") {
				t.Errorf("warnings %q", m.warnings)
			}
			if m.registries[1].count("") == 0 {
				t.Error("the mirror was not asked")
			}
		})
	}
	m := newMirrored(t, 2)
	if err := m.take(t, m.open(t)); err != nil || m.registries[1].count("") != 0 || len(m.warnings) != 0 {
		t.Errorf("%v; %d requests to the mirror, warnings %q", err, m.registries[1].count(""), m.warnings)
	}
}

// A blob that one place cuts short is continued at the next one, not started again.
func TestABlobGoesOnElsewhere(t *testing.T) {
	m := newMirrored(t, 2)
	m.registries[0].serveBlobs(halve)
	var span string
	m.registries[1].hook = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/blobs/") {
			span = req.Header.Get("Range")
		}
		return false
	}
	if _, err := readAll(t, m.open(t), m.layer); err != nil || span != "bytes=200000-" {
		t.Errorf("asked for %q, %v", span, err)
	}
}

// newCut returns two places with a blob. The first breaks each connection after some progress.
func newCut(t *testing.T) (m *mirrored, d ocispec.Descriptor, content []byte) {
	m, content = newMirrored(t, 2), random(50*progress)
	for _, r := range m.registries {
		d = r.blob("x", content)
	}
	cutting(m.registries[0], d, progress)
	return m, d, content
}

// TestAPlaceThatLosesConnectionsIsLeft, for one that answers; where none does, it goes on.
func TestAPlaceThatLosesConnectionsIsLeft(t *testing.T) {
	for _, c := range []struct {
		name string
		gone bool // the mirror does not answer
		cuts int64
	}{{"to the mirror", false, 2}, {"there is none", true, 49}} {
		m, d, content := newCut(t)
		_, cuts := cutting(m.registries[0], d, progress)
		s := m.open(t)
		if c.gone {
			m.registries[1].Close()
		}
		got, err := readAll(t, s, d)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d of %d bytes, %v", c.name, len(got), len(content), err)
		}
		if cuts.Load() != c.cuts || len(m.warnings) != 1 {
			t.Errorf("%s: %d cuts, warnings %q", c.name, cuts.Load(), m.warnings)
		}
		if !c.gone && !strings.Contains(strings.Join(m.warnings, ""), "it lost 2 connections") {
			t.Errorf("%s: warnings %q", c.name, m.warnings)
		}
	}
}

// TestAPlaceThatWasLeftIsAskedLast: it served badly, but the one that was taken for it fails.
func TestAPlaceThatWasLeftIsAskedLast(t *testing.T) {
	m, d, content := newCut(t)
	asked := false
	m.registries[1].hook = func(w http.ResponseWriter, req *http.Request) bool {
		if asked {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		asked = true
		halve(w, req, content) // nothing of what is missing
		return true
	}
	if got, err := readAll(t, m.open(t), d); err != nil || !bytes.Equal(got, content) || !asked {
		t.Errorf("%d of %d bytes, %v", len(got), len(content), err)
	}
}

// TestALyingMirrorOfABadPlace: a blob of which two places served parts is wrong. The one that was left for the other is
// not blamed, and serves all of it in the end.
func TestALyingMirrorOfABadPlace(t *testing.T) {
	m, d, content := newCut(t)
	m.registries[1].serveBlobs(func(w http.ResponseWriter, req *http.Request, content []byte) {
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(make([]byte, len(content))))
	})
	s := m.open(t)
	tries := 0
	got, err := readAll(t, s, d)
	for ; errors.Is(err, ErrElsewhere) && tries < 5; tries++ {
		got, err = readAll(t, s, d)
	}
	if err != nil || !bytes.Equal(got, content) || tries != 2 {
		t.Errorf("after %d tries: %d of %d bytes, %v", tries, len(got), len(content), err)
	}
}

// TestABusyPlace: it is left alone for as long as it says, unless there is another one.
func TestABusyPlace(t *testing.T) {
	busy := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	m := newMirrored(t, 2)
	m.registries[0].hook = busy
	if err := m.take(t, m.open(t)); err != nil || m.registries[0].count("") > 3 {
		t.Errorf("%v; it was asked %d times", err, m.registries[0].count(""))
	}
	m = newMirrored(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.registries[0].hook = func(w http.ResponseWriter, req *http.Request) bool {
		time.AfterFunc(500*time.Millisecond, cancel)
		return busy(w, req)
	}
	_, err := m.open(t).Resolve(ctx)
	if !errors.Is(err, context.Canceled) || m.registries[0].count("") != 1 {
		t.Errorf("%v; it was asked %d times in half a second", err, m.registries[0].count(""))
	}
}

// A place that cuts its tampered blobs short does not make others look guilty.
func TestWhoIsBlamedForAMixedBlob(t *testing.T) {
	m := newMirrored(t, 2)
	m.registries[0].serveBlobs(func(w http.ResponseWriter, req *http.Request, content []byte) {
		halve(w, req, append([]byte{content[0] ^ 1}, content[1:]...))
	})
	if err := m.take(t, m.open(t)); err != nil {
		t.Error(err)
	}
	before := m.registries[0].count("GET")
	s := m.open(t)
	if _, err := readAll(t, s, m.layer); !errors.Is(err, ErrElsewhere) || !errors.Is(err, verify.ErrDigest) {
		t.Errorf("got %v", err)
	}
	asked := m.registries[0].count("GET")
	if _, err := readAll(t, s, m.layer); err != nil || asked == before || m.registries[0].count("GET") != asked {
		t.Errorf("%v; the one that served wrong content was asked %d times more", err,
			m.registries[0].count("GET")-asked)
	}
}

func TestEveryPlaceFails(t *testing.T) {
	m := newMirrored(t, 3)
	for _, r := range m.registries {
		r.Close()
	}
	s := m.open(t)
	_, err := s.Resolve(t.Context())
	wantError(t, err, failure.ErrUnreachable, "connection refused")
	for _, r := range m.registries {
		if !strings.Contains(err.Error(), r.host()) {
			t.Errorf("%v does not name %s", err, r.host())
		}
	}
	_, err = s.Candidates(t.Context(), m.image.Digest)
	wantError(t, err, failure.ErrUnreachable, m.registries[2].host())

	m = newMirrored(t, 2)
	for _, r := range m.registries {
		r.serveBlobs(tamper)
	}
	s = m.open(t)
	_, err = readAll(t, s, m.layer)
	wantError(t, err, ErrElsewhere, m.registries[0].host())
	for range 2 {
		_, err = readAll(t, s, m.layer)
		wantError(t, err, verify.ErrDigest, m.registries[1].host())
		if errors.Is(err, ErrElsewhere) {
			t.Errorf("%v, but there is none", err)
		}
	}
}

// Signatures are found at any place, even if another place has none, or rubbish.
func TestSignaturesElsewhere(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(m *mirrored)
		want  []string
		err   error
	}{
		{"at the mirror only", func(m *mirrored) { attach(m.registries[1], m.image, "", "B") }, []string{"bundle B "},
			nil},
		{"at the first only", func(m *mirrored) { attach(m.registries[0], m.image, "", "B") }, []string{"bundle B "},
			nil},
		{"the mirror is down",
			func(m *mirrored) { attach(m.registries[0], m.image, "", "B"); m.registries[1].Close() },
			[]string{"bundle B "}, nil},
		{"none at all", func(*mirrored) {}, nil, nil},
		{"none, and one is down", func(m *mirrored) { m.registries[1].Close() }, nil, failure.ErrUnreachable},
		{"none, and the first is down", func(m *mirrored) { m.registries[0].Close() }, nil, failure.ErrUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMirrored(t, 2)
			c.setup(m)
			s := m.open(t)
			if _, err := s.Resolve(t.Context()); err != nil {
				t.Fatal(err)
			}
			found, err := s.Candidates(t.Context(), m.image.Digest)
			if !slices.Equal(words(found), c.want) || !errors.Is(err, c.err) {
				t.Errorf("found %q, %v", words(found), err)
			}
		})
	}
	t.Run("rubbish", func(t *testing.T) {
		m := newMirrored(t, 2)
		for i := range verify.MaxCandidates {
			attach(m.registries[0], m.image, "", fmt.Sprint("rubbish ", i))
		}
		attach(m.registries[1], m.image, "", "good")
		found, err := m.open(t).Candidates(t.Context(), m.image.Digest)
		if err != nil || len(found) != verify.MaxCandidates/2+1 || !slices.Contains(words(found), "bundle good ") {
			t.Errorf("found %d, %v", len(found), err)
		}
	})
}

// A digest in the configuration also applies to the tags of mirrors.
func TestAMirrorCannotChangeAPinnedImage(t *testing.T) {
	m := newMirrored(t, 2)
	m.registries[1].manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{Annotations: map[string]string{"another": "one"}}, "stable")
	m.registries[0].Close()
	_, err := m.openAt(t, "@"+m.image.Digest.String()).Resolve(t.Context())
	wantError(t, err, failure.ErrNotFound, "it has sha256:")
	if d, err := m.open(t).Resolve(t.Context()); err != nil || d.Digest == m.image.Digest {
		t.Errorf("by tag: %s, %v", d.Digest, err)
	}
}

// A layout and a tar of one are mirrors like registries.
func TestOfflineMirrors(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(1000))
	image := l.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}, "stable")
	attach(l, image, "sha256-"+image.Digest.Encoded()+".sig", "B")
	for _, mirror := range []string{"oci:" + l.dir + ":stable", "oci-archive:" + l.archive(t) + ":stable"} {
		s, err := Open("oci:"+t.TempDir()+"/none:stable", Options{Mirrors: []string{mirror}})
		if err != nil {
			t.Fatal(err)
		}
		if err := get(t, s, layer); err != nil {
			t.Error(err)
		}
		if found, err := s.Candidates(t.Context(), image.Digest); err != nil || len(found) != 1 {
			t.Errorf("found %q, %v", words(found), err)
		}
	}
	for _, mirrors := range [][]string{{"oci:"}, {"debian"}, slices.Repeat([]string{"oci:/x"}, maxMirrors+1)} {
		if _, err := Open("oci:/srv/layout:stable", Options{Mirrors: mirrors}); !errors.Is(err, failure.ErrReference) {
			t.Errorf("%q: got %v", mirrors, err)
		}
	}
}
