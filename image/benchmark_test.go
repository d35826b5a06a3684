package image

import (
	"context"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serverEntries returns as many entries as a Debian server has, with little content.
func serverEntries() []ent {
	entries := bootable()
	for i := range 38_900 - len(entries) {
		e := reg(fmt.Sprintf("usr/share/package-%d/part-%d/file-%d.conf", i/300, i/20, i), "")
		if i%10 != 0 {
			e = reg(e.Name, strings.Repeat(fmt.Sprintln(i), 10+i%100))
		}
		entries = append(entries, e)
	}
	return entries
}

// BenchmarkStageOneChangedFile stages an image that has one more small layer than the one that is here.
func BenchmarkStageOneChangedFile(b *testing.B) {
	s := newBuilder(b)
	s.layer(ocispec.MediaTypeImageLayerZstd, packLayer(serverEntries()...))
	st := newStore(b)
	if _, err := s.stage(st); err != nil {
		b.Fatal(err)
	}
	s.layer(ocispec.MediaTypeImageLayerZstd, packLayer(reg("etc/changed", "x")))
	predicted, err := Predict(context.Background(), s.source(), s.m.Layers, s.config.RootFS.DiffIDs)
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		s.config.Config.Labels = map[string]string{"n": fmt.Sprint(n)}
		img, err := s.open(s.manifest())
		if err != nil {
			b.Fatal(err)
		}
		img.Seal = predicted.Digest
		src := s.source()
		b.StartTimer()
		if _, err := Stage(context.Background(), st, src, img, "test", nil); err != nil {
			b.Fatal(err)
		}
	}
}
