package image

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// What a publisher predicts without a store is what a host gets, whatever the store contains.
func TestSealIsTheDigestOfTheStagedRoot(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayerGzip, packLayer(append(bootable(),
		reg("etc/old", "gone later"), reg("empty", ""), hard("twin", "usr/lib/os-release"),
		reg("big", strings.Repeat("large ", 400_000)))...))
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(reg("etc/.wh.old", ""), sym("link", "big")))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	root, err := Predict(context.Background(), b.source(), img.Manifest.Layers, img.Config.RootFS.DiffIDs)
	if err != nil {
		t.Fatal(err)
	}
	img.Seal = root.Digest
	staged, err := Stage(context.Background(), newStore(t), b.source(), img, "test", nil)
	if err != nil || staged.Info.RootDigest != img.Seal {
		t.Errorf("staged %s, sealed %s, %v", staged.Info.RootDigest, img.Seal, err)
	}
}

// The build of a kernel is read from it, in all places where distributions put the kernel.
func TestForeseenKernels(t *testing.T) {
	kernel := func(banner string) string {
		text := make([]byte, 0x1000)
		copy(text[0x202:], "HdrS")
		binary.LittleEndian.PutUint16(text[0x20e:], uint16(len(text)-0x200))
		return string(text) + banner + "\x00" + strings.Repeat("code", 1000)
	}
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayerGzip, packLayer(append(bootable(),
		reg("usr/lib/modules/6.1-a/modules.dep", ""),
		reg("usr/lib/modules/6.1-a/vmlinuz", kernel("6.1-a (a@b) #1 SMP (2026-11-12)")),
		reg("usr/lib/modules/6.1-b/modules.dep", ""), reg("boot/vmlinuz-6.1-b", kernel("6.1-b (a@b) #2 SMP")),
		reg("usr/lib/modules/6.1-c/modules.dep", ""), reg("boot/vmlinuz-6.1-c", kernel("6.1-other (a@b) #3 SMP")),
		// its banner would be after its end
		reg("usr/lib/modules/6.1-d/modules.dep", ""), reg("boot/vmlinuz-6.1-d", kernel("")[:0x300]),
		reg("usr/lib/modules/6.1-e/modules.dep", ""), reg("boot/vmlinuz-6.1-e", "no kernel"))...))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	root, err := Predict(context.Background(), b.source(), img.Manifest.Layers, img.Config.RootFS.DiffIDs)
	if want := map[string]string{"6.1-a": "#1 SMP (2026-11-12)", "6.1-b": "#2 SMP"}; err != nil ||
		!maps.Equal(root.KernelVersions, want) {
		t.Errorf("%q, %v; want %q", root.KernelVersions, err, want)
	}
	staged, err := Stage(context.Background(), newStore(t), b.source(), img, "test", nil)
	if err != nil || staged.Info.RootDigest != root.Digest {
		t.Errorf("staged %s, foreseen %s, %v", staged.Info.RootDigest, root.Digest, err)
	}
}

// A root that differs from its seal gets no name. A root that exists is not returned for another seal.
func TestSealBroken(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayerGzip, packLayer(bootable()...))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	st := newStore(t)
	img.Seal[0] = 1
	if _, err := Stage(context.Background(), st, b.source(), img, "test", nil); !errors.Is(err, verify.ErrDigest) ||
		!strings.Contains(err.Error(), "seals the image with 01") {
		t.Errorf("broken seal: %v", err)
	}
	nothingVisible(t, st)
	img.Seal[0] = 0
	if _, err := Stage(context.Background(), st, b.source(), img, "test", nil); err != nil {
		t.Fatal(err)
	}
	img.Seal[0] = 1
	if _, err := Stage(context.Background(), st, b.source(), img, "test", nil); !errors.Is(err, verify.ErrDigest) {
		t.Errorf("broken seal of a root that is there: %v", err)
	}
}

// A publisher does not seal what its hosts would refuse.
func TestSealOfAnExchangedLayer(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	diffs := b.config.RootFS.DiffIDs
	b.layer(ocispec.MediaTypeImageLayer, packLayer(reg("x", "y")))
	if _, err := Predict(context.Background(), b.source(), b.m.Layers[1:], diffs); !errors.Is(err, verify.ErrDigest) {
		t.Errorf("exchanged: %v", err)
	}
	if _, err := Predict(context.Background(), b.source(), b.m.Layers, diffs); !errors.Is(err, verify.ErrMalformed) {
		t.Errorf("one too many: %v", err)
	}
}
