package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/store"
)

// TestDamagedRootIsStagedAnew: a root that is here already is only returned if it is still what was signed.
func TestDamagedRootIsStagedAnew(t *testing.T) {
	content := "content that is in an object and not in the image of the tree"
	replace := func(path string, change func([]byte) []byte) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.WriteFile(path, change(data), 0o400)
	}
	flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	for name, damage := range map[string]func(*store.Store, store.Root) error{
		"root.cfs": func(_ *store.Store, r store.Root) error { return replace(r.CFS(), flip) },
		"object": func(s *store.Store, _ store.Root) error {
			return replace(filepath.Join(s.ObjectsDir(), composefs.ObjectPath(fsverity.Sum([]byte(content)))), flip)
		},
		"object is gone": func(s *store.Store, _ store.Root) error {
			return os.Remove(filepath.Join(s.ObjectsDir(), composefs.ObjectPath(fsverity.Sum([]byte(content)))))
		},
		"image.json": func(_ *store.Store, r store.Root) error {
			return replace(filepath.Join(r.Dir, "image.json"), func([]byte) []byte { return []byte("{}") })
		},
		"root.cfs and image.json that belong together": func(s *store.Store, r store.Root) error {
			other := newBuilder(t)
			other.layer(ocispec.MediaTypeImageLayer, packLayer(append(bootable(), reg("evil", "evil"))...))
			img, err := other.open(other.manifest())
			if err != nil {
				return err
			}
			evil, err := Stage(context.Background(), s, other.source(), img, "test", nil)
			if err != nil {
				return err
			}
			if err := replace(r.CFS(), func([]byte) []byte { data, _ := os.ReadFile(evil.CFS()); return data }); err != nil {
				return err
			}
			r.Info.RootDigest = evil.Info.RootDigest
			info, err := json.Marshal(r.Info)
			return errors.Join(err, replace(filepath.Join(r.Dir, "image.json"), func([]byte) []byte { return info }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t)
			b.layer(ocispec.MediaTypeImageLayer, packLayer(append(bootable(), reg("file", content))...))
			img, err := b.open(b.manifest())
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			good, err := Stage(context.Background(), s, b.source(), img, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			img.Seal = good.Info.RootDigest
			if err := errors.Join(CheckRoot(s, good), damage(s, good)); err != nil {
				t.Fatal(err)
			}
			again, err := Stage(context.Background(), s, b.source(), img, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := again.Measure(); err != nil || m.Digest != img.Seal {
				t.Errorf("root.cfs has the digest %s, %v; the seal is %s", m.Digest, err, img.Seal)
			}
			if err := s.CheckObjects(again); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStagedRootOnAFullDisk: a root that is here already can be switched to on a full disk, although it cannot be
// sealed there.
func TestStagedRootOnAFullDisk(t *testing.T) {
	dir := tmpfs(t, "size=100m,nr_inodes=300")
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(append(bootable(), reg("file", "content"))...))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Stage(t.Context(), s, b.source(), img, "test", nil); err != nil {
		t.Fatal(err)
	}
	err = os.RemoveAll(filepath.Join(dir, "store", "checked")) // removing it later would make room
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), nil, 0o600)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := Stage(t.Context(), s, b.source(), img, "test", nil); err != nil {
		t.Error(err)
	}
}
