package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
)

// uplink is a registry behind a network that ends after so many bytes.
type uplink struct {
	*httptest.Server
	dir  string
	mu   sync.Mutex
	left int64                   // bytes until the network ends
	sent map[digest.Digest]int64 // bytes, by blob
}

func newUplink(t *testing.T, dir string) *uplink {
	u := &uplink{dir: dir, sent: map[digest.Digest]int64{}}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

// ServeHTTP sends the rest of a blob, as long as the network is there. Afterwards the blob is not found, so that the
// run ends without further attempts.
func (u *uplink) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	name := digest.Digest(path.Base(req.URL.Path))
	content, err := os.ReadFile(filepath.Join(u.dir, "blobs", "sha256", name.Encoded()))
	if err != nil || u.left == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	start := 0
	if span := req.Header.Get("Range"); span != "" {
		fmt.Sscanf(span, "bytes=%d-", &start)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)-start))
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	part := content[start:min(int64(len(content)), int64(start)+u.left)]
	u.left, u.sent[name] = u.left-int64(len(part)), u.sent[name]+int64(len(part))
	w.Write(part)
}

// endsAfter makes the network end after so many bytes.
func (u *uplink) endsAfter(bytes int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left = bytes
}

// sentOf returns how many bytes were sent of a layer.
func (u *uplink) sentOf(l ocispec.Descriptor) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent[l.Digest]
}

// interrupted is an image that is staged over a network that ends again and again.
type interrupted struct {
	*stacked
	net *uplink
}

func newInterrupted(t *testing.T) *interrupted {
	noise := make([]byte, 3<<20) // more than a small file
	r := rand.NewChaCha8([32]byte{18})
	r.Read(noise)
	entries := []ent{reg("large", string(noise))}
	for i := range 60 {
		entries = append(entries, reg(fmt.Sprintf("small-%d", i), string(noise[i*50_000:][:50_000])))
	}
	s := newStacked(t, packLayer(bootable()...), packLayer(entries...))
	return &interrupted{s, newUplink(t, s.dir)}
}

// stage stages the image over a network that ends after so many bytes.
func (i *interrupted) stage(img *Image, bytes int64) (store.Root, error) {
	i.net.endsAfter(bytes)
	host := strings.TrimPrefix(i.net.URL, "http://")
	src := must(source.Open(host+"/os/server:x", source.Options{PlainHTTP: []string{host}, Warn: func(err error) {
		i.warnings = append(i.warnings, err.Error())
	}}))
	return Stage(context.Background(), i.st, src, img, "test", nil)
}

// begun returns the files of interrupted runs that match a pattern.
func (i *interrupted) begun(pattern string) []string {
	return must(filepath.Glob(filepath.Join(i.st.ObjectsDir(), "..", "staging", "root-*", pattern)))
}

// TestInterruptedRunsGoOn: what has arrived once is not sent again, however often the network ends, and the root is the
// same. Without a seal, only the layer that is not complete goes on.
func TestInterruptedRunsGoOn(t *testing.T) {
	t.Parallel()
	for name, isSealed := range map[string]bool{"sealed": true, "without a seal": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newInterrupted(t)
			img := i.sealed(2)
			want := img.Seal
			if !isSealed {
				img = i.first(2)
			}
			lower, upper := img.Manifest.Layers[0], img.Manifest.Layers[1]
			runs := 0
			root, err := i.stage(img, upper.Size/5)
			for ; errors.Is(err, failure.ErrNotFound) && runs < 20; runs++ {
				if _, err := i.st.Root(img.ID()); !errors.Is(err, store.ErrNoRoot) {
					t.Fatalf("a root is there: %v", err)
				}
				if err := i.st.Sweep(); err != nil { // as the next command does
					t.Fatal(err)
				}
				root, err = i.stage(img, upper.Size/5)
			}
			if err != nil || root.Info.RootDigest != want || len(i.warnings) != 0 || runs < 4 {
				t.Fatalf("after %d runs: %+v, %v, %q", runs, root.Info, err, i.warnings)
			}
			if sent := i.net.sentOf(upper); sent != upper.Size {
				t.Errorf("%d bytes were sent of the upper layer, which has %d", sent, upper.Size)
			}
			if sent := i.net.sentOf(lower); isSealed && sent != lower.Size {
				t.Errorf("%d bytes were sent of the lower layer, which has %d", sent, lower.Size)
			}
			if err := i.st.CheckObjects(root); err != nil {
				t.Error(err)
			}
			if left := i.begun("."); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestDamagedBeginning: whatever a power cut or somebody does to what an interrupted run has kept, the root is right.
func TestDamagedBeginning(t *testing.T) {
	t.Parallel()
	change := func(edit func([]byte) []byte) func(name string) error {
		return func(name string) error {
			content, err := os.ReadFile(name)
			if err == nil {
				err = errors.Join(os.Remove(name), os.WriteFile(name, edit(content), 0o600))
			}
			return err
		}
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	instead := func(link func(string, string) error) func(name string) error {
		return func(name string) error { return errors.Join(os.Remove(name), link(other, name)) }
	}
	t.Cleanup(func() {
		if text := must(os.ReadFile(other)); string(text) != "of the host" {
			t.Errorf("a file of the host was changed to %.40q", text)
		}
	})
	for name, c := range map[string]struct {
		pattern  string
		damage   func(name string) error
		warnings string // "" for none
	}{
		"other bytes": {"blob-*", change(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), ""},
		"zeros":       {"blob-*", change(func(b []byte) []byte { return make([]byte, len(b)) }), ""},
		"shorter":     {"blob-*", change(func(b []byte) []byte { return b[:len(b)/2] }), ""},
		"longer":      {"blob-*", change(func(b []byte) []byte { return bytes.Repeat(b, 30) }), ""},
		"empty":       {"blob-*", change(func([]byte) []byte { return nil }), ""},
		"a directory": {"blob-*", func(name string) error {
			return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
		}, ""},
		"a link":      {"blob-*", instead(os.Symlink), ""},
		"a hard link": {"blob-*", instead(os.Link), ""},
		"a pipe": {"blob-*", func(name string) error {
			return errors.Join(os.Remove(name), unix.Mkfifo(name, 0o600))
		}, ""},
		"huge": {"blob-*", func(name string) error { return os.Truncate(name, 1<<40) }, ""},
		"huge objects": {"objects/*", func(name string) error {
			return os.Truncate(name, 1<<40)
		}, "other content: 2"},
		"objects are hard links": {"objects/*", instead(os.Link), "other content: 2"},
		"an inventory is a directory": {"roots/layer-*", func(name string) error {
			return errors.Join(os.Remove(name), os.MkdirAll(name+"/x/y", 0o700))
		}, "regular file"},
		"objects":           {"objects/*", change(func(b []byte) []byte { b[0] ^= 1; return b }), "other content: 2"},
		"cut objects":       {"objects/*", change(func([]byte) []byte { return nil }), "other content: 2"},
		"objects are links": {"objects/*", instead(os.Symlink), "other content: 2"},
		"inventories":       {"roots/layer-*", change(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), "its checksum"},
		"no directory": {".", func(name string) error {
			return errors.Join(os.RemoveAll(name), os.Symlink("/etc", filepath.Clean(name)))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newInterrupted(t)
			img := i.sealed(2)
			upper := img.Manifest.Layers[1]
			if _, err := i.stage(img, upper.Size*4/5); !errors.Is(err, failure.ErrNotFound) {
				t.Fatal(err)
			}
			files := i.begun(c.pattern)
			if len(files) == 0 {
				t.Fatalf("nothing is kept as %s: %q", c.pattern, i.begun("*"))
			}
			for _, file := range files {
				if err := c.damage(file); err != nil {
					t.Fatal(err)
				}
			}
			root, err := i.stage(img, 1<<40)
			if err != nil || root.Info.RootDigest != img.Seal {
				t.Fatalf("%+v, %v", root.Info, err)
			}
			if err := i.st.CheckObjects(root); err != nil {
				t.Error(err)
			}
			if (len(i.warnings) != 0) != (c.warnings != "") || len(i.warnings) > 1 ||
				!strings.Contains(strings.Join(i.warnings, ""), c.warnings) {
				t.Errorf("warnings %q, want %q", i.warnings, c.warnings)
			}
		})
	}
}

// TestWhatIsNotKept: what a registry serves wrong is not kept, and neither is what was begun of another root. gc keeps
// nothing.
func TestWhatIsNotKept(t *testing.T) {
	t.Parallel()
	i := newInterrupted(t)
	img := i.first(2)
	upper := img.Manifest.Layers[1]
	interrupt := func() {
		t.Helper()
		if _, err := i.stage(img, upper.Size/2); !errors.Is(err, failure.ErrNotFound) || len(i.begun("objects/*")) == 0 {
			t.Fatalf("%v; kept: %q", err, i.begun("objects/*"))
		}
	}
	gone := func(what string) {
		t.Helper()
		if left := i.begun("."); len(left) != 0 {
			t.Errorf("%s: left: %q", what, left)
		}
	}
	interrupt()
	if _, err := i.st.GC(nil, nil); err != nil {
		t.Fatal(err)
	}
	gone("gc")
	interrupt()
	i.mustStage(i.first(1))
	gone("another root")

	blob := filepath.Join(i.dir, "blobs", "sha256", upper.Digest.Encoded())
	content := must(os.ReadFile(blob))
	content[len(content)-10] ^= 1
	if err := os.WriteFile(blob, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := i.stage(img, 1<<40); err == nil {
		t.Error("wrong content was staged")
	}
	gone("wrong content")
}
