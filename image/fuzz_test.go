package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/verify"
)

// Whatever a signed index, manifest and configuration contain, opening them returns an image that can be staged, or an
// error with a class.
func FuzzOpen(f *testing.F) {
	b := newBuilder(f)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	b.m.Config = b.json(ocispec.MediaTypeImageConfig, b.config)
	config, manifest := must(json.Marshal(b.config)), must(json.Marshal(b.m))
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		Platform: &host,
	}, {MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(config), Size: int64(len(config))}}}
	index.SchemaVersion = 2
	if len(config) == 0 || len(manifest) == 0 {
		f.Fatal("the corpus is empty")
	}
	f.Add(config, manifest, must(json.Marshal(index)))
	f.Add([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["sha256:0"]}}`), manifest,
		[]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Fuzz(func(t *testing.T, config, manifest, index []byte) {
		b := *b
		b.t = t
		src := b.source()
		c := b.blob(ocispec.MediaTypeImageConfig, config)
		var m ocispec.Manifest
		if json.Unmarshal(manifest, &m) == nil {
			m.MediaType, m.Config = ocispec.MediaTypeImageManifest, c
			manifest = must(json.Marshal(m))
		}
		b.blob(ocispec.MediaTypeImageManifest, manifest)
		for mediaType, text := range map[string][]byte{ocispec.MediaTypeImageManifest: manifest,
			ocispec.MediaTypeImageIndex: index} {
			v, err := vouched(t, text, mediaType)
			if err != nil {
				continue
			}
			i, err := Open(context.Background(), src, v, host)
			switch {
			case err == nil && (len(i.Config.RootFS.DiffIDs) != len(i.Manifest.Layers) ||
				len(i.Manifest.Layers) > layer.MaxLayers || len(i.Version()) > maxVersion):
				t.Errorf("opened %+v", i)
			case err != nil && !errors.Is(err, verify.ErrNotTrusted) && !errors.Is(err, ErrPlatform) &&
				!errors.Is(err, ErrNotBootable) && !errors.Is(err, failure.ErrSource):
				t.Errorf("%v has no class", err)
			}
		}
	})
}

// Reading the os-release of an image always ends, whatever it contains.
func FuzzOSRelease(f *testing.F) {
	seeds := []string{osRelease, "ID='a b'\nVERSION_ID=\"", "ID=back\\\\slash", "=\n#\n"}
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseOSRelease(text); len(got.ID) > len(text)*4 || strings.Contains(got.ID, "\n") {
			t.Errorf("%q gives %+v", text, got)
		}
	})
}

// FuzzBanner: whatever is in a kernel, its digest is that of its content, and the banner is a part of it.
func FuzzBanner(f *testing.F) {
	kernel := make([]byte, 1024)
	copy(kernel[kernelMagic:], "HdrS")
	kernel[kernelPointer+1] = 1
	copy(kernel[kernelSector+256:], "6.12.1-test (user@host) #1 SMP\x00")
	if len(kernel) < kernelHeader {
		f.Fatal("the seed has no header")
	}
	for _, seed := range [][]byte{kernel, kernel[:kernelHeader], kernel[:kernelHeader-1], kernel[:800], nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b := banners{}
		d, err := b.put(bytes.NewReader(text), int64(len(text)))
		if err != nil || d != fsverity.Sum(text) || !bytes.Contains(text, []byte(b[d])) {
			t.Errorf("the digest is %s, the banner %q: %v", d, b[d], err)
		}
	})
}
