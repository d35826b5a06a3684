package image

import (
	"context"
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// What a publisher computes without a store is what a host gets, whatever the store had before.
func TestSealIsTheDigestOfTheStagedRoot(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayerGzip, packLayer(append(bootable(),
		reg("etc/old", "gone later"), reg("empty", ""), hard("twin", "usr/lib/os-release"), reg("big", strings.Repeat("large ", 400_000)))...))
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(reg("etc/.wh.old", ""), sym("link", "big")))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	if img.Seal, err = RootDigest(context.Background(), b.source(), img.Manifest.Layers, img.Config.RootFS.DiffIDs); err != nil {
		t.Fatal(err)
	}
	root, err := Stage(context.Background(), newStore(t), b.source(), img, "test", nil)
	if err != nil || root.Info.RootDigest != img.Seal {
		t.Errorf("staged %s, sealed %s, %v", root.Info.RootDigest, img.Seal, err)
	}
}

// A root that differs from its seal gets no name; one that was staged before is not handed out for another seal.
func TestSealBroken(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayerGzip, packLayer(bootable()...))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	st := newStore(t)
	img.Seal[0] = 1
	if _, err := Stage(context.Background(), st, b.source(), img, "test", nil); !errors.Is(err, verify.ErrDigest) || !strings.Contains(err.Error(), "sealed with 01") {
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
	if _, err := RootDigest(context.Background(), b.source(), b.m.Layers[1:], diffs); !errors.Is(err, verify.ErrDigest) {
		t.Errorf("exchanged: %v", err)
	}
	if _, err := RootDigest(context.Background(), b.source(), b.m.Layers, diffs); !errors.Is(err, verify.ErrMalformed) {
		t.Errorf("one too many: %v", err)
	}
}
