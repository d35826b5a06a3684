package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// copyLayout copies a layout, and changes the content of some blobs.
func copyLayout(t *testing.T, from string, change func(content []byte) []byte, blobs ...ocispec.Descriptor) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, d := range blobs {
		file := filepath.Join(dir, "blobs/sha256", d.Digest.Encoded())
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, change(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A place that serves wrong layers is skipped, whatever they contain, and nothing of them is in the root.
func TestStagePassesOverAPlaceThatServesOtherContent(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	b.layer(ocispec.MediaTypeImageLayer, packLayer(reg("more", "content")))
	m := b.manifest()
	want, err := b.stage(newStore(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"another layer": func(c []byte) []byte { return append(packLayer(reg("evil", "content")), c...)[:len(c)] },
		"rubbish":       func(c []byte) []byte { return make([]byte, len(c)) },
		"cut":           func(c []byte) []byte { return c[:len(c)/2] },
		"longer":        func(c []byte) []byte { return append(c, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			evil := copyLayout(t, b.dir, change, b.m.Layers[1])
			other := copyLayout(t, b.dir, change, b.m.Layers[0], b.m.Config)
			img, err := b.open(m)
			if err != nil {
				t.Fatal(err)
			}
			warnings := 0
			src, err := source.Open("oci:"+evil,
				source.Options{Mirrors: []string{"oci:" + other, "oci:" + b.dir}, Warn: func(error) { warnings++ }})
			if err != nil {
				t.Fatal(err)
			}
			st := newStore(t)
			root, err := Stage(context.Background(), st, src, img, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			if root.Info.RootDigest != want.Info.RootDigest || root.Info.NewBytes != want.Info.NewBytes ||
				warnings == 0 {
				t.Errorf("%d warnings; root %+v, want %+v", warnings, root.Info, want.Info)
			}
			if report, err := st.GC([]string{root.ID}, nil); err != nil || report.Objects != 0 {
				t.Errorf("garbage after it: %+v, %v", report, err)
			}
			if _, err := Open(context.Background(),
				must(source.Open("oci:"+other, source.Options{Mirrors: []string{"oci:" + evil}})), img.Verified,
				host); err != nil {
				t.Errorf("with a configuration at the second place only: %v", err)
			}
			alone := must(source.Open("oci:"+evil, source.Options{Mirrors: []string{"oci:" + evil}}))
			st = newStore(t)
			if _, err := Stage(context.Background(), st, alone, img, "test", nil); !errors.Is(err, verify.ErrDigest) &&
				!errors.Is(err, failure.ErrUnreachable) {
				t.Errorf("at no place: got %v", err)
			}
			nothingVisible(t, st)
		})
	}
}
