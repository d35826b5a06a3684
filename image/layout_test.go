package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

var host = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ent is an entry of a layer.
type ent struct {
	tar.Header
	body string
}

func reg(name, body string) ent {
	return ent{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func program(name, body string) ent {
	e := reg(name, body)
	e.Mode = 0o755
	return e
}

func folder(name string) ent {
	return ent{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func sym(name, target string) ent {
	return ent{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, ""}
}

func hard(name, target string) ent {
	return ent{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func packLayer(entries ...ent) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			panic(err)
		}
		must(io.WriteString(w, e.body))
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

const osRelease = "PRETTY_NAME=\"Test OS 7\"\nID=testos\nVERSION_ID='7'\nIMAGE_VERSION=7.3\n# ID=no\n"

// bootable is the smallest tree that systemd accepts.
func bootable() []ent {
	return []ent{
		program("usr/lib/systemd/systemd", "#!init"),
		reg("usr/lib/os-release", osRelease),
		sym("etc/os-release", "../usr/lib/os-release"),
	}
}

// builder writes an OCI layout.
type builder struct {
	t      testing.TB
	dir    string
	config ocispec.Image
	m      ocispec.Manifest
}

func newBuilder(t testing.TB) *builder {
	b := &builder{t: t, dir: t.TempDir()}
	b.config.Platform = host
	b.config.RootFS.Type = "layers"
	b.m.SchemaVersion = 2
	b.m.MediaType = ocispec.MediaTypeImageManifest
	return b
}

// blob adds content and returns its descriptor.
func (b *builder) blob(mediaType string, content []byte) ocispec.Descriptor {
	b.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	dir := filepath.Join(b.dir, "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, d.Digest.Encoded()), content, 0o644); err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (b *builder) json(mediaType string, v any) ocispec.Descriptor {
	b.t.Helper()
	return b.blob(mediaType, must(json.Marshal(v)))
}

// layer adds a layer of that media type.
func (b *builder) layer(mediaType string, raw []byte) {
	b.t.Helper()
	packed := raw
	switch mediaType {
	case ocispec.MediaTypeImageLayerZstd:
		packed = must(zstd.NewWriter(nil)).EncodeAll(raw, nil)
	case ocispec.MediaTypeImageLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip":
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		w.Write(raw)
		w.Close()
		packed = buf.Bytes()
	}
	b.m.Layers = append(b.m.Layers, b.blob(mediaType, packed))
	b.config.RootFS.DiffIDs = append(b.config.RootFS.DiffIDs, digest.FromBytes(raw))
}

// manifest writes the configuration and the manifest.
func (b *builder) manifest() ocispec.Descriptor {
	b.t.Helper()
	configType := ocispec.MediaTypeImageConfig
	if b.m.MediaType != ocispec.MediaTypeImageManifest {
		configType = configDocker
	}
	b.m.Config = b.json(configType, b.config)
	d := b.json(b.m.MediaType, b.m)
	b.tag(d, "")
	return d
}

// tag makes d the image of the layout, or one of them.
func (b *builder) tag(d ocispec.Descriptor, tag string) {
	b.t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	path := filepath.Join(b.dir, "index.json")
	if data, err := os.ReadFile(path); err == nil && tag != "" {
		if err := json.Unmarshal(data, &index); err != nil {
			b.t.Fatal(err)
		}
	}
	if tag != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	index.Manifests = append(index.Manifests, d)
	if err := os.WriteFile(path, must(json.Marshal(index)), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) source() *source.Source { return must(source.Open("oci:"+b.dir, source.Options{})) }

// open verifies and opens the image in the layout.
func (b *builder) open(d ocispec.Descriptor) (*Image, error) {
	b.t.Helper()
	src := b.source()
	content, err := src.Manifest(context.Background(), d)
	if err != nil {
		b.t.Fatal(err)
	}
	return Open(context.Background(), src, vouch(b.t, content, d.MediaType), host)
}

// stage builds, opens and stages an image.
func (b *builder) stage(st *store.Store) (store.Root, error) {
	b.t.Helper()
	img, err := b.open(b.manifest())
	if err != nil {
		b.t.Fatal(err)
	}
	return Stage(context.Background(), st, b.source(), img, "test", nil)
}

// vouch signs content and verifies it.
func vouch(t testing.TB, content []byte, mediaType string) *verify.Verified {
	t.Helper()
	v, err := vouched(t, content, mediaType)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// vouched is vouch for content that can be refused nevertheless.
func vouched(t testing.TB, content []byte, mediaType string) (*verify.Verified, error) {
	t.Helper()
	signer := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	bundle := must(sign.Bundle(signer, digest.FromBytes(content)))
	policy := verify.Policy{Keys: []verify.Key{must(sign.PublicKey("test", signer))}}
	return policy.Verify(content, mediaType, []verify.Candidate{{Form: verify.FormBundle, Bundle: bundle}})
}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	return must(store.Open(filepath.Join(t.TempDir(), "store")))
}
