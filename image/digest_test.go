package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// rename makes the manifest refer to a layer by another digest, and stores its content under that.
func (b *builder) rename(n int, algorithm digest.Algorithm) {
	b.t.Helper()
	content, err := os.ReadFile(filepath.Join(b.dir, "blobs/sha256", b.m.Layers[n].Digest.Encoded()))
	if err != nil {
		b.t.Fatal(err)
	}
	d := algorithm.FromBytes(content)
	b.m.Layers[n].Digest = d
	dir := filepath.Join(b.dir, "blobs", algorithm.String())
	if err := errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, d.Encoded()), content, 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

// A layer can have sha512 digests, compressed and uncompressed.
func TestStageBySHA512(t *testing.T) {
	b, st := newBuilder(t), newStore(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(reg("more", "content")))
	b.rename(0, digest.SHA512)
	b.rename(1, digest.SHA512)
	raw := packLayer(reg("more", "content"))
	b.config.RootFS.DiffIDs[1] = digest.SHA512.FromBytes(raw)
	if _, err := b.stage(st); err != nil {
		t.Error(err)
	}
	b.config.RootFS.DiffIDs[1] = digest.SHA512.FromString("other")
	if _, err := b.stage(st); !errors.Is(err, verify.ErrDigest) {
		t.Errorf("other diff_id: got %v, want %v", err, verify.ErrDigest)
	}
	b.config.RootFS.DiffIDs[1] = digest.SHA512.FromBytes(raw)
	file := filepath.Join(b.dir, "blobs/sha512", b.m.Layers[0].Digest.Encoded())
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.stage(newStore(t)); !errors.Is(err, verify.ErrDigest) {
		t.Errorf("tampered: got %v, want %v", err, verify.ErrDigest)
	}
}

// Any other algorithm is refused, and nothing is staged.
func TestStageRefusesOtherDigests(t *testing.T) {
	for name, d := range map[string]digest.Digest{
		"md5":       digest.Digest("md5:" + strings.Repeat("0", 32)),
		"sha1":      digest.Digest("sha1:" + strings.Repeat("0", 40)),
		"sha384":    digest.SHA384.FromString("x"),
		"blake3":    digest.Digest("blake3:" + strings.Repeat("0", 64)),
		"case":      digest.Digest("SHA256:" + strings.Repeat("0", 64)),
		"none":      "",
		"no sum":    "sha512:",
		"too short": digest.Digest("sha512:" + strings.Repeat("0", 64)),
	} {
		t.Run(name, func(t *testing.T) {
			b, st := newBuilder(t), newStore(t)
			b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
			b.m.Layers[0].Digest = d
			if _, err := b.stage(st); !errors.Is(err, verify.ErrMalformed) || !errors.Is(err, verify.ErrNotTrusted) ||
				!strings.Contains(err.Error(), "digest") {
				t.Errorf("got %v, want %v", err, verify.ErrMalformed)
			}
			nothingVisible(t, st)
		})
	}
}
