package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

func TestLayout(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(100_000))
	m := l.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}, "stable")
	attach(l, m, "sha256-"+m.Digest.Encoded()+".sig", "B1")
	for _, suffix := range []string{"", ":stable", "@" + m.Digest.String()} {
		s := l.open(t, suffix)
		d, err := s.Resolve(t.Context())
		if err != nil || d.Digest != m.Digest || d.MediaType != m.MediaType {
			t.Fatalf("%s: resolved to %+v, %v", s, d, err)
		}
		if _, err := s.Manifest(t.Context(), d); err != nil {
			t.Error(err)
		}
		if blob, err := readAll(t, s, layer); err != nil || digest.FromBytes(blob) != layer.Digest {
			t.Errorf("%s: %d bytes, %v", s, len(blob), err)
		}
	}
	// A manifest that only an index of the layout lists.
	inner := l.blob(ocispec.MediaTypeImageManifest,
		[]byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageManifest+`","layers":[]}`))
	if d, err := l.open(t, "@"+inner.Digest.String()).Resolve(t.Context()); err != nil ||
		d.MediaType != inner.MediaType || d.Size != inner.Size {
		t.Errorf("resolved to %+v, %v", d, err)
	}
}

func TestLayoutFailures(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(100_000))
	l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{layer}}, "one")
	l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "two")
	resolve := func(suffix string) error {
		_, err := l.open(t, suffix).Resolve(t.Context())
		return err
	}
	wantError(t, resolve(":three"), failure.ErrNotFound, "three")
	wantError(t, resolve(""), failure.ErrNotFound, "2 images")
	wantError(t, resolve("@"+digest.FromString("no such").String()), failure.ErrNotFound, "")
	wantError(t, resolve("@"+layer.Digest.String()), failure.ErrNotFound, "not a manifest")

	blob := filepath.Join(l.dir, "blobs/sha256", layer.Digest.Encoded())
	good, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	tampered := bytes.Clone(good)
	tampered[50_000] ^= 1
	for _, c := range []struct {
		name    string
		content []byte
		want    error
	}{
		{"tampered", tampered, verify.ErrDigest},
		{"longer", append(bytes.Clone(good), 0), verify.ErrDigest},
		{"truncated", good[:50_000], failure.ErrUnreachable},
		{"gone", nil, failure.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(blob, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			if c.content == nil {
				os.Remove(blob)
			}
			_, err := readAll(t, l.open(t, ":one"), layer)
			wantError(t, err, c.want, "")
		})
	}
	for _, index := range []string{"", "[]", "{", `{"manifests":` + strings.Repeat(" ", verify.MaxManifest) + `[]}`} {
		if err := os.WriteFile(filepath.Join(l.dir, "index.json"), []byte(index), 0o644); err != nil {
			t.Fatal(err)
		}
		wantError(t, resolve(":one"), failure.ErrUnreachable, "index.json")
		_, err := l.open(t, ":one").Candidates(t.Context(), layer.Digest)
		wantError(t, err, failure.ErrUnreachable, "index.json")
	}
	os.RemoveAll(l.dir)
	wantError(t, resolve(":one"), failure.ErrUnreachable, "does not exist")
}

// TestUnlisted finds a bundle that `cosign save` stores without listing it.
func TestUnlisted(t *testing.T) {
	l := newTestLayout(t)
	attach(l, l.blob(ocispec.MediaTypeImageManifest, []byte("other")), "", "of another image")
	m := l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest},
		"stable")
	bundle := attach(l, m, "", "B1")
	l.index.Manifests = nil
	l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}, "stable")
	for name, content := range map[string]string{
		"no-digest":                    "{}",
		strings.Repeat("0", 64):        `{"subject":`,
		strings.Repeat("1", 64):        "not JSON",
		bundle.Digest.Encoded() + ".x": "{}",
	} {
		if err := os.WriteFile(filepath.Join(l.dir, "blobs/sha256", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := l.open(t, "").Candidates(t.Context(), m.Digest)
	if err != nil || len(found) != 1 || string(found[0].Bundle) != "B1" || found[0].From != bundle.Digest.String() {
		t.Errorf("found %q, %v", words(found), err)
	}
}

// TestLayoutOfOddFiles: a FIFO in the place of a file is refused. Opening it would wait until somebody writes to it.
func TestLayoutOfOddFiles(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(1000))
	m := l.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}, "stable")
	packed := filepath.Join(t.TempDir(), "image.tar")
	becomesFIFO(t, packed)
	_, err := openArchive(t, packed, "").Resolve(t.Context())
	wantError(t, err, failure.ErrUnreachable, "not a regular file")

	becomesFIFO(t, filepath.Join(l.dir, "blobs/sha256", layer.Digest.Encoded()))
	_, err = readAll(t, l.open(t, ":stable"), layer)
	wantError(t, err, failure.ErrUnreachable, "not a regular file")

	becomesFIFO(t, filepath.Join(l.dir, "blobs/sha256", m.Digest.Encoded()))
	_, err = l.open(t, ":stable").Manifest(t.Context(), m)
	wantError(t, err, failure.ErrUnreachable, "not a regular file")
	if _, err := l.open(t, ":stable").Candidates(t.Context(), digest.FromString("another")); err != nil {
		t.Errorf("an image of the layout that cannot be read does no harm to another, and: %v", err)
	}
	unlisted := filepath.Join(l.dir, "blobs/sha256", digest.FromString("unlisted").Encoded())
	becomesFIFO(t, unlisted)
	_, err = l.open(t, "@"+digest.FromString("unlisted").String()).Resolve(t.Context())
	wantError(t, err, failure.ErrNotFound, "not a regular file")

	becomesFIFO(t, filepath.Join(l.dir, "index.json"))
	_, err = l.open(t, ":stable").Resolve(t.Context())
	wantError(t, err, failure.ErrUnreachable, "not a regular file")
}

// becomesFIFO puts a FIFO in the place of a file. A reader that waits for it reads nothing after ten seconds.
func becomesFIFO(t *testing.T, file string) {
	t.Helper()
	os.Remove(file)
	if err := unix.Mkfifo(file, 0o644); err != nil {
		t.Fatal(err)
	}
	release := time.AfterFunc(10*time.Second, func() {
		if w, err := os.OpenFile(file, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil { // somebody waits for it
			t.Errorf("%s was opened", file)
			w.Close()
		}
	})
	t.Cleanup(func() { release.Stop() })
}

// TestLayoutOfLinks: no link leads out of a layout, not even to the right content. One inside is followed.
func TestLayoutOfLinks(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(1000))
	m := l.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}, "stable")
	linked := func(name, to string) {
		t.Helper()
		name = filepath.Join(l.dir, name)
		if err := os.Rename(name, to); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(filepath.Join(l.dir, "blobs"), filepath.Join(l.dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b", filepath.Join(l.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(t, l.open(t, ":stable"), layer); err != nil {
		t.Errorf("a link inside the layout: %v", err)
	}
	linked("b/sha256/"+layer.Digest.Encoded(), filepath.Join(t.TempDir(), "layer"))
	_, err := readAll(t, l.open(t, ":stable"), layer)
	wantError(t, err, failure.ErrUnreachable, "escapes")
	linked("b/sha256", filepath.Join(t.TempDir(), "sha256"))
	_, err = l.open(t, ":stable").Manifest(t.Context(), m)
	wantError(t, err, failure.ErrUnreachable, "escapes")
	_, err = l.open(t, ":stable").Candidates(t.Context(), m.Digest)
	wantError(t, err, failure.ErrUnreachable, "escapes")
	linked("index.json", filepath.Join(t.TempDir(), "index.json"))
	_, err = l.open(t, ":stable").Resolve(t.Context())
	wantError(t, err, failure.ErrUnreachable, "escapes")
}

// TestLayoutIsInterrupted: reading files ends with the context, as reading from a registry does.
func TestLayoutIsInterrupted(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(1<<20))
	m := l.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}, "stable")
	attach(l, m, "", "B1")
	ctx, cancel := context.WithCancel(t.Context())
	s := l.open(t, ":stable")
	b, err := s.Blob(ctx, layer)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := io.ReadFull(b, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, b); !errors.Is(err, context.Canceled) || n > 0 {
		t.Errorf("%d bytes more, %v", n, err)
	}
	if _, err := s.Candidates(ctx, m.Digest); !errors.Is(err, context.Canceled) {
		t.Errorf("signatures are looked for after the end: %v", err)
	}
}
