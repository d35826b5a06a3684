package publish

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/packing"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/patches/patchestest"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/verify"
)

func someHeader(sequence int64) release.Header {
	return release.Header{Version: "2026.11", Sequence: sequence, Expires: longAgo.Add(time.Hour)}
}

// draft packs an image, and begins a release in the same layout.
func draft(t *testing.T) (layout string) {
	t.Helper()
	layout = filepath.Join(t.TempDir(), "layout")
	pack(t, packing.Recipe{Tree: makeTree(t), Layout: layout, Architecture: "amd64"})
	_, err := NewRelease(context.Background(), "oci:"+layout+":stable", someHeader(1))
	check(t, err)
	return layout
}

func exists(layout string, d ocispec.Descriptor) bool {
	_, err := os.Stat(filepath.Join(layout, "blobs/sha256", d.Digest.Encoded()))
	return err == nil
}

// Replaced drafts are removed, unless something else needs them. Nothing else is removed.
func TestWhatATagNamedBefore(t *testing.T) {
	ctx := context.Background()
	layout := draft(t)
	reference := "oci:" + layout + ":stable"
	first, err := ShowRelease(ctx, reference, plain)
	check(t, err)
	second, err := NewRelease(ctx, reference, someHeader(2))
	check(t, err)
	if exists(layout, ocispec.Descriptor{Digest: first.Digest}) || second.Replaced {
		t.Errorf("the first draft is still there, or was told of: %+v", second)
	}

	p, err := openPlace(reference, plain)
	check(t, err)
	check(t, p.target.Tag(ctx, second.Index, "kept"))
	third, err := NewRelease(ctx, reference, someHeader(3))
	check(t, err)
	if !exists(layout, second.Index) {
		t.Error("a draft with another tag was removed")
	}

	seal, _ := newSeal(t, verify.FormBundle)
	_, err = Sign(ctx, reference, seal, plain)
	check(t, err)
	fourth, err := NewRelease(ctx, reference, someHeader(4))
	check(t, err)
	if !exists(layout, third.Index) || !fourth.Replaced {
		t.Error("a signed release was removed, or not told of")
	}

	ordinary, err := oras.TagBytes(ctx, p.target, ocispec.MediaTypeImageIndex,
		[]byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","manifests":[]}`), "ordinary")
	check(t, err)
	_, err = NewRelease(ctx, "oci:"+layout+":ordinary", someHeader(5))
	check(t, err)
	if !exists(layout, ordinary) {
		t.Error("an ordinary index was removed")
	}
}

// A release with a signature of either form cannot change.
func TestSignedReleaseDoesNotChange(t *testing.T) {
	for _, form := range []verify.Form{verify.FormBundle, verify.FormSimple} {
		layout := draft(t)
		reference := "oci:" + layout + ":stable"
		seal, _ := newSeal(t, form)
		_, err := Sign(context.Background(), reference, seal, plain)
		check(t, err)
		if _, err := AddImage(context.Background(), reference, "oci:"+layout+":test", NewImage{},
			plain); !errors.Is(err, ErrSigned) {
			t.Errorf("%s: %v", form, err)
		}
	}
}

func TestReleaseIsMadeInALayout(t *testing.T) {
	if _, err := NewRelease(context.Background(), "registry.example.org/os:stable", someHeader(1)); !errors.Is(err,
		failure.ErrReference) {
		t.Errorf("%v", err)
	}
}

// The same module gives the same live patch, at any time.
func TestLivePatchIsReproducible(t *testing.T) {
	module := filepath.Join(t.TempDir(), "fix-one.ko")
	check(t, os.WriteFile(module, patchestest.Module{Name: "fix_one", Release: "6.12"}.Bytes(), 0o644))
	p := release.LivePatch{KernelVersion: "#1 SMP", KernelBuildID: "c0ffee0123456789"}
	var digests []string
	for range 2 {
		d, err := AddLivePatch(context.Background(), "oci:"+draft(t)+":stable", module, p)
		check(t, err)
		digests = append(digests, d.Release.LivePatches[0].Descriptor.Digest.String())
		time.Sleep(1100 * time.Millisecond) // the time in seconds could differ
	}
	if digests[0] != digests[1] {
		t.Errorf("%v", digests)
	}
	p.KernelRelease = "6.13"
	if _, err := AddLivePatch(context.Background(), "oci:"+draft(t)+":stable", module, p); !errors.Is(err,
		ErrRelease) || !errors.Is(err, patches.ErrModule) {
		t.Errorf("a module for another kernel: %v", err)
	}
	check(t, os.Truncate(module, patches.MaxModule+1))
	if _, err := AddLivePatch(context.Background(), "oci:"+draft(t)+":stable", module, p); !errors.Is(err,
		ErrRelease) {
		t.Errorf("a module of %d bytes: %v", patches.MaxModule+1, err)
	}
}

// A delta of another tool is listed, and is copied with all that it refers to when the release is pushed.
func TestDelta(t *testing.T) {
	ctx := context.Background()
	layout := draft(t)
	reference := "oci:" + layout + ":stable"
	from := filepath.Join(t.TempDir(), "deltas")
	p, err := openPlace("oci:"+from+":d", plain)
	check(t, err)
	blob, err := p.pushBlob(ctx, "application/vnd.tar-diff", bytes.Repeat([]byte("delta"), 100))
	check(t, err)
	d, err := oras.PackManifest(ctx, p.target, oras.PackManifestVersion1_1, release.DeltaType,
		oras.PackManifestOptions{Layers: []ocispec.Descriptor{blob}})
	check(t, err)
	check(t, p.target.Tag(ctx, d, "d"))
	_, err = AddDelta(ctx, reference, "oci:"+from+":d", plain)
	check(t, err)
	_, err = AddImage(ctx, reference, "oci:"+layout+":test", NewImage{}, plain)
	check(t, err)
	usb := filepath.Join(t.TempDir(), "usb")
	_, err = Push(ctx, reference, "oci:"+usb+":stable", plain, noProgress)
	check(t, err)
	if !exists(usb, blob) {
		t.Error("the delta's content was left behind")
	}
	shown, err := ShowRelease(ctx, "oci:"+usb+":stable", plain)
	check(t, err)
	if len(shown.Deltas) != 1 || len(shown.Images) != 1 ||
		shown.Images[0].Descriptor.Platform.Architecture != "amd64" {
		t.Errorf("%+v", shown)
	}
}

// skopeo copies an index unchanged only if it need not add which images have zstd layers.
func TestCompressionIsNoted(t *testing.T) {
	ctx := context.Background()
	layout := draft(t)
	tree := makeTree(t)
	for architecture, compression := range map[string]string{"arm64": "zstd", "riscv64": "gzip"} {
		pack(t, packing.Recipe{Tree: tree, Layout: layout, Architecture: architecture, Compression: compression})
		_, err := AddImage(ctx, "oci:"+layout+":stable", "oci:"+layout+":test", NewImage{}, plain)
		check(t, err)
	}
	shown, err := ShowRelease(ctx, "oci:"+layout+":stable", plain)
	check(t, err)
	noted := map[string]string{}
	for _, i := range shown.Images {
		noted[i.Descriptor.Platform.Architecture] = i.Descriptor.Annotations["io.github.containers.compression.zstd"]
	}
	if want := map[string]string{"arm64": "true", "riscv64": ""}; !maps.Equal(noted, want) {
		t.Errorf("noted as zstd: %v, want %v", noted, want)
	}
}

// A publisher cannot name another build than that of the kernel in the image.
func TestKernelVersionOfAnImage(t *testing.T) {
	for _, c := range []struct{ said, told, want string }{
		{"", "", ""}, {"#1 SMP", "", "#1 SMP"}, {"", "#1 SMP", "#1 SMP"}, {"#1 SMP", "#1 SMP", "#1 SMP"},
	} {
		if got, err := (NewImage{KernelVersion: c.said}).kernelVersion(c.told); got != c.want || err != nil {
			t.Errorf("said %q, told %q: %q, %v", c.said, c.told, got, err)
		}
	}
	if _, err := (NewImage{KernelVersion: "#1 SMP"}).kernelVersion("#2 SMP"); !errors.Is(err, ErrRelease) {
		t.Errorf("another build: %v", err)
	}
}
