package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// archive packs a layout into a tar, as skopeo does.
func (l *testLayout) archive(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := tar.NewWriter(out)
	if err := w.AddFS(os.DirFS(l.dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func openArchive(t *testing.T, file, suffix string) *Source {
	t.Helper()
	s, err := Open("oci-archive:"+file+suffix, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestArchive(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(100_000))
	m := l.manifest(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}, "stable")
	attach(l, m, "", "unlisted") // as `cosign save` stores it
	l.index.Manifests = l.index.Manifests[:1]
	attach(l, m, "", "listed")
	attach(l, m, "sha256-"+m.Digest.Encoded()+".sig", "by tag")
	packed := l.archive(t)
	other := filepath.Join(t.TempDir(), "by-tar.tar")
	// names begin with "./"
	if out, err := exec.Command("tar", "-C", l.dir, "-cf", other, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range []string{packed, other} {
		for _, suffix := range []string{":stable", "@" + m.Digest.String()} {
			s := openArchive(t, file, suffix)
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
			found, err := s.Candidates(t.Context(), m.Digest)
			if got := words(found); err != nil || len(got) != 3 ||
				!strings.Contains(strings.Join(got, ","), "unlisted") {
				t.Errorf("%s: found %q, %v", s, got, err)
			}
			_, err = readAll(t, s, ocispec.Descriptor{Digest: digest.FromString("none"), Size: 4})
			wantError(t, err, failure.ErrNotFound, "the layout does not have")
		}
	}
	_, err := openArchive(t, packed, ":none").Resolve(t.Context())
	wantError(t, err, failure.ErrNotFound, "none")
}

// The archive that was opened is the one that is read, even if another file replaces it.
func TestAnArchiveIsOpenedOnce(t *testing.T) {
	l := newTestLayout(t)
	layer := l.blob(ocispec.MediaTypeImageLayer, random(1000))
	l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{layer}}, "stable")
	file := l.archive(t)
	s := openArchive(t, file, ":stable")
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("another one"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(t, s, layer); err != nil {
		t.Error(err)
	}
	// If it is changed in place, digests differ.
	file = l.archive(t)
	s = openArchive(t, file, ":stable")
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := os.ReadFile(filepath.Join(l.dir, "blobs/sha256", layer.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	content[bytes.Index(content, blob)] ^= 1
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = readAll(t, s, layer)
	wantError(t, err, verify.ErrDigest, "")
}
