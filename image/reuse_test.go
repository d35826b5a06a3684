package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/inventory"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
)

// stacked is an image of several layers, whose lower ones are staged as an image of their own.
type stacked struct {
	*builder
	t        *testing.T
	st       *store.Store
	warnings []string
}

func newStacked(t *testing.T, layers ...[]byte) *stacked {
	s := &stacked{builder: newBuilder(t), t: t, st: newStore(t)}
	for _, l := range layers {
		s.layer(ocispec.MediaTypeImageLayerZstd, l)
	}
	return s
}

// first returns an image of the first layers.
func (s *stacked) first(n int) *Image {
	s.t.Helper()
	b := *s.builder
	b.m.Layers, b.config.RootFS.DiffIDs = b.m.Layers[:n], b.config.RootFS.DiffIDs[:n]
	img, err := b.open(b.manifest())
	if err != nil {
		s.t.Fatal(err)
	}
	return img
}

// from returns the source, whose warnings are noted.
func (s *stacked) from() *source.Source {
	return must(source.Open("oci:"+s.dir, source.Options{Warn: func(err error) {
		s.warnings = append(s.warnings, err.Error())
	}}))
}

func (s *stacked) stageImage(img *Image) (store.Root, error) {
	s.t.Helper()
	return Stage(context.Background(), s.st, s.from(), img, "test", nil)
}

func (s *stacked) mustStage(img *Image) store.Root {
	s.t.Helper()
	root, err := s.stageImage(img)
	if err != nil {
		s.t.Fatal(err)
	}
	return root
}

// sealed returns an image of the first layers that is sealed.
func (s *stacked) sealed(n int) *Image {
	s.t.Helper()
	img := s.first(n)
	img.Seal = must(s.predicted(img))
	return img
}

// relabelled returns another image of the first layers, with that seal.
func (s *stacked) relabelled(n int, seal fsverity.Digest) *Image {
	s.t.Helper()
	s.config.Config.Labels = map[string]string{"another": "image"}
	img := s.first(n)
	img.Seal = seal
	return img
}

// withhold removes layers from the source.
func (s *stacked) withhold(layers ...int) {
	s.t.Helper()
	for _, n := range layers {
		err := os.Remove(filepath.Join(s.dir, "blobs", "sha256", s.m.Layers[n].Digest.Encoded()))
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// inventoryOf returns the path of the inventory of a layer in a root.
func (s *stacked) inventoryOf(root store.Root, layer int) string {
	return root.Inventory(inventory.Layer{Blob: s.m.Layers[layer].Digest, Diff: s.config.RootFS.DiffIDs[layer]})
}

// predicted returns the digest of an image's root, made from its layers only.
func (s *stacked) predicted(img *Image) (fsverity.Digest, error) {
	p, err := Predict(context.Background(), s.source(), img.Manifest.Layers, img.Config.RootFS.DiffIDs)
	return p.Digest, err
}

// mixedLayer returns a layer with every kind of entry, from so few names that most of them meet. What links lead to
// is there in most cases.
func mixedLayer(r *rand.Rand) []byte {
	files := []string{"usr/lib/os-release", "usr/lib/systemd/systemd"}
	path := func(names ...string) string {
		dirs := []string{"", "d/", "d/e/", "usr/lib/", strings.Repeat("deep/", 30)}
		return dirs[r.IntN(len(dirs))] + names[r.IntN(len(names))]
	}
	var entries []ent
	for range 2 + r.IntN(12) {
		var e ent
		switch r.IntN(12) {
		case 0:
			e = folder(path("d", "e", "a"))
		case 1:
			e = sym(path("l", "a", "b"), "/d/e")
		case 2, 3:
			e = hard(path("h", "b", "c"), files[r.IntN(len(files))])
		case 4, 5:
			e = reg(path(".wh.a", ".wh.b", ".wh.h", ".wh.d", ".wh..wh..opq", ".wh..wh.plnk"), "")
		case 6:
			e = reg(path("a", "l/x"), "")
		default:
			e = reg(path("a", "b", "c", strings.Repeat("long", 60)), fmt.Sprint("content ", r.IntN(6)))
			files = append(files, e.Name)
		}
		if strings.Contains(e.Name, "usr/lib/.wh..wh..opq") || strings.Contains(e.Name, "usr/lib/d") {
			continue // the tree stays bootable
		}
		e.Mode, e.Uid, e.Gid = int64(r.IntN(0o10000)), r.IntN(1<<20), r.IntN(3)
		if r.IntN(3) == 0 {
			e.PAXRecords = map[string]string{"SCHILY.xattr.user.a": fmt.Sprint(r.IntN(3)),
				"SCHILY.xattr.security.selinux": "l\x00", "SCHILY.xattr.com.apple.x": "dropped"}
		}
		entries = append(entries, e)
	}
	return packLayer(entries...)
}

// TestReusedLayersGiveTheSameRoot stages random stacks of layers on top of an image with some of these layers, which
// cannot be fetched any more. The root is the one that all layers give without a store.
func TestReusedLayersGiveTheSameRoot(t *testing.T) {
	const seeds = 120
	same, refused := 0, 0
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(18, seed))
		layers := [][]byte{packLayer(bootable()...)}
		for range 1 + r.IntN(4) {
			layers = append(layers, mixedLayer(r))
		}
		s := newStacked(t, layers...)
		lower := 1 + r.IntN(len(layers)-1)
		img, below := s.first(len(layers)), s.first(lower)
		want, err := s.predicted(img)
		img.Seal = want
		if err != nil {
			img.Seal = fsverity.Sum([]byte("of an image that is refused"))
		}
		if _, low := s.stageImage(below); low != nil { // such a stack is refused both ways
			if err == nil && !errors.Is(low, ErrNotBootable) {
				t.Fatalf("seed %d: the lower layers are refused alone: %v", seed, low)
			}
			continue
		}
		if err != nil {
			refused++
			if _, reused := s.stageImage(img); !errors.Is(reused, ErrLayer) || len(s.warnings) != 1 {
				t.Errorf("seed %d: %v, and with layers that are here %v, %q", seed, err, reused, s.warnings)
			}
			continue
		}
		for n := range lower {
			s.withhold(n)
		}
		root, err := s.stageImage(img)
		if errors.Is(err, failure.ErrNotFound) && len(s.warnings) > 0 && strings.Contains(s.warnings[0], "not bootable") {
			continue // the whole image is not bootable, so its layers were asked for again
		}
		if err != nil || root.Info.RootDigest != want || len(s.warnings) != 0 {
			t.Errorf("seed %d: the root %s, %v, %q; want %s", seed, root.Info.RootDigest, err, s.warnings, want)
		}
		same++
	}
	if t.Logf("%d roots are the same, %d stacks are refused", same, refused); same < seeds/2 || refused < 3 {
		t.Error("the random layers test too little")
	}
}

// oneChanged returns an image of a base and a small layer on top.
func oneChanged(t *testing.T) *stacked {
	return newStacked(t, packLayer(append(bootable(), reg("big", strings.Repeat("content ", 300_000)), reg("v", "1"),
		hard("also", "v"))...), packLayer(reg("v", "2")), packLayer(reg("w", "3"), reg("v/.wh..wh.plnk", "")))
}

// TestDamagedInventoriesAreNotUsed: the layer is fetched, and one warning says why.
func TestDamagedInventoriesAreNotUsed(t *testing.T) {
	replace := func(name string, content []byte) error {
		if err := os.Remove(name); err != nil {
			return err
		}
		return os.WriteFile(name, content, 0o400)
	}
	for name, c := range map[string]struct {
		damage func(*stacked, store.Root, string) error
		say    string
	}{
		"changed": {func(_ *stacked, _ store.Root, inv string) error {
			data := must(os.ReadFile(inv))
			data[len(data)/2] ^= 1
			return replace(inv, data)
		}, "its checksum is wrong"},
		"cut": {func(_ *stacked, _ store.Root, inv string) error {
			data := must(os.ReadFile(inv))
			return replace(inv, data[:len(data)-40])
		}, "its checksum is wrong"},
		"empty": {func(_ *stacked, _ store.Root, inv string) error { return replace(inv, nil) }, "it is cut short"},
		"of another layer": {func(s *stacked, r store.Root, inv string) error {
			return replace(inv, must(os.ReadFile(s.inventoryOf(r, 1))))
		}, "of another layer"},
		"no file": {func(_ *stacked, _ store.Root, inv string) error {
			return errors.Join(os.Remove(inv), os.Mkdir(inv, 0o700))
		}, "not a regular file"},
		"object is gone": {func(s *stacked, _ store.Root, _ string) error {
			return os.Remove(filepath.Join(s.st.ObjectsDir(), composefs.ObjectPath(fsverity.Sum([]byte("1")))))
		}, "have other content: 1"},
		"object is another": {func(s *stacked, _ store.Root, _ string) error {
			return replace(filepath.Join(s.st.ObjectsDir(), composefs.ObjectPath(fsverity.Sum([]byte(osRelease)))),
				[]byte(strings.Repeat("x", len(osRelease))))
		}, "have other content: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := oneChanged(t)
			below, img := s.first(2), s.first(3)
			img.Seal = must(s.predicted(img))
			root := s.mustStage(below) // an image without a seal leaves inventories, too
			if err := c.damage(s, root, s.inventoryOf(root, 0)); err != nil {
				t.Fatal(err)
			}
			s.withhold(1) // nothing is wrong with that one
			again := s.mustStage(img)
			if len(s.warnings) != 1 || !strings.Contains(s.warnings[0], c.say) {
				t.Errorf("warnings %q, want one with %q", s.warnings, c.say)
			}
			if err := s.st.CheckObjects(again); err != nil || again.Info.RootDigest != img.Seal {
				t.Errorf("%+v, %v", again.Info, err)
			}
			s.withhold(0, 2) // the root has inventories of its own
			if _, err := s.st.GC([]string{again.ID}, nil); err != nil {
				t.Fatal(err)
			}
			next := s.relabelled(3, img.Seal)
			if last := s.mustStage(next); last.ID == again.ID || last.Info.RootDigest != img.Seal ||
				len(s.warnings) != 1 {
				t.Errorf("%+v, %q", last, s.warnings)
			}
		})
	}
}

// forge returns an inventory of the first layer with other entries. Their content is an object that is here.
func forge(t *testing.T, s *stacked, entries []ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := must(inventory.NewWriter(&b, inventory.Layer{Blob: s.m.Layers[0].Digest, Diff: s.config.RootFS.DiffIDs[0]}))
	for _, e := range entries {
		object := fsverity.Digest{}
		if e.body != "" {
			object = fsverity.Sum([]byte(osRelease))
			e.Size = int64(len(osRelease))
		}
		if err := w.Add(&e.Header, object); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestForgedInventory: somebody who was root wrote an inventory with a right checksum. A sealed image is staged from
// its layers then.
func TestForgedInventory(t *testing.T) {
	for name, forged := range map[string][]ent{
		"another file":  append(bootable(), reg("big", "evil")),
		"not bootable":  {reg("big", "x")},
		"hard link":     {hard("a", "nowhere")},
		"out of a root": {reg("../a", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			s := oneChanged(t)
			img := s.sealed(3)
			inv := s.inventoryOf(s.mustStage(s.first(1)), 0)
			if err := os.WriteFile(inv, forge(t, s, forged), 0o400); err != nil {
				t.Fatal(err)
			}
			if root := s.mustStage(img); root.Info.RootDigest != img.Seal || len(s.warnings) != 1 ||
				!strings.Contains(s.warnings[0], errStartAgain.Error()) {
				t.Errorf("root %+v, warnings %q", root.Info, s.warnings)
			}
		})
	}
}

// TestWithoutASealAllIsFetched: nothing would show that an inventory was forged.
func TestWithoutASealAllIsFetched(t *testing.T) {
	s := oneChanged(t)
	s.mustStage(s.first(2))
	s.withhold(0)
	if _, err := s.stageImage(s.first(3)); !errors.Is(err, failure.ErrNotFound) {
		t.Errorf("staged without the layer: %v", err)
	}
}

// TestDamagedInventoryInTwoRoots: the roots have one file, so one warning is enough.
func TestDamagedInventoryInTwoRoots(t *testing.T) {
	s := oneChanged(t)
	two, three := s.sealed(2), s.sealed(3)
	one := s.mustStage(s.first(1))
	root := s.mustStage(two)
	if !os.SameFile(must(os.Stat(s.inventoryOf(one, 0))), must(os.Stat(s.inventoryOf(root, 0)))) {
		t.Fatal("the roots have two files")
	}
	for _, damage := range []func(data []byte) []byte{
		func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		func(data []byte) []byte { return forge(t, s, []ent{reg("another", "file")}) },
	} {
		s.warnings = nil
		name := s.inventoryOf(one, 0)
		if err := os.WriteFile(name, damage(must(os.ReadFile(name))), 0o400); err != nil {
			t.Fatal(err)
		}
		if got := s.mustStage(three); got.Info.RootDigest != three.Seal || len(s.warnings) != 1 {
			t.Errorf("%+v, %q", got.Info, s.warnings)
		}
		if _, err := s.st.GC([]string{one.ID, root.ID}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInventoryThatCannotBeKept: a good image is staged all the same.
func TestInventoryThatCannotBeKept(t *testing.T) {
	s := oneChanged(t)
	img := s.sealed(2)
	g := must(s.st.Begin(img.ID()))
	defer g.Abort()
	run := stager{src: s.from(), staging: g, reuse: &reuse{used: []used{{"/nowhere", inventory.Layer{}}}}}
	run.keepReused()
	if len(s.warnings) != 1 || !strings.Contains(s.warnings[0], "cannot keep the inventory of a layer") {
		t.Errorf("warnings %q", s.warnings)
	}
}

// TestDamagedRootIsNotReused: what is beside a damaged root is not believed when it is staged again.
func TestDamagedRootIsNotReused(t *testing.T) {
	s := oneChanged(t)
	img := s.sealed(3)
	root := s.mustStage(img)
	if err := errors.Join(os.Remove(root.CFS()), os.WriteFile(root.CFS(), []byte("x"), 0o400)); err != nil {
		t.Fatal(err)
	}
	s.withhold(0)
	if _, err := s.stageImage(img); !errors.Is(err, failure.ErrNotFound) {
		t.Errorf("staged without the layer: %v", err)
	}
}

// TestInventoriesGoWithTheirLastRoot, whichever root goes first.
func TestInventoriesGoWithTheirLastRoot(t *testing.T) {
	s := oneChanged(t)
	one, two := s.mustStage(s.first(1)), s.mustStage(s.first(2))
	if _, err := s.st.GC([]string{two.ID}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.inventoryOf(one, 0)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of the first root: %v", err)
	}
	last := s.sealed(3)
	s.withhold(0, 1)
	three := s.mustStage(last)
	if report, err := s.st.Fsck(t.Context(), func(store.Root) error { return nil }); err != nil ||
		len(report.Damage) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := s.st.GC([]string{three.ID}, nil); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := inventory.Check(s.inventoryOf(three, n)); err != nil {
			t.Error(err)
		}
	}
	if report, err := s.st.GC(nil, nil); err != nil || len(report.Roots) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	for _, pattern := range []string{"roots/*", "objects/*/*", "staging/*"} {
		if left := must(filepath.Glob(filepath.Join(s.st.ObjectsDir(), "..", pattern))); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	}
}

// TestReplacedObjectsAreNotNeeded: an object that only a replaced file had is collected with the root that had it.
// The layer is reused as long as the file stays replaced.
func TestReplacedObjectsAreNotNeeded(t *testing.T) {
	s := newStacked(t, packLayer(append(bootable(), reg("v", "1"))...), packLayer(reg("v", "2")),
		packLayer(reg("w", "3")))
	s.mustStage(s.first(1))
	two := s.mustStage(s.first(2))
	if _, err := s.st.GC([]string{two.ID}, nil); err != nil {
		t.Fatal(err)
	}
	replaced := filepath.Join(s.st.ObjectsDir(), composefs.ObjectPath(fsverity.Sum([]byte("1"))))
	if _, err := os.Stat(replaced); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the replaced object: %v", err)
	}
	one, again := s.sealed(1), s.sealed(3)
	s.withhold(1)
	s.mustStage(again) // has no use for the replaced file either
	if len(s.warnings) != 0 {
		t.Errorf("warnings %q", s.warnings)
	}
	if root := s.mustStage(one); root.Info.RootDigest != one.Seal || len(s.warnings) != 1 {
		t.Errorf("%s, want %s; %q", root.Info.RootDigest, one.Seal, s.warnings)
	}
}

// TestFsckAndInventories: fsck names a damaged inventory, which no root needs, and it can be removed.
func TestFsckAndInventories(t *testing.T) {
	s := oneChanged(t)
	root := s.mustStage(s.first(1))
	name := s.inventoryOf(root, 0)
	if err := os.Truncate(name, 50); err != nil {
		t.Fatal(err)
	}
	check := func(r store.Root) error { return CheckRoot(s.st, r) }
	report, err := s.st.Fsck(t.Context(), check)
	if err != nil || len(report.Damage) != 1 || report.Damage[0].Path != name || len(report.Damage[0].Roots) != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, other := range []string{root.CFS(), filepath.Join(root.Dir, "image.json"), root.Dir,
		filepath.Join(root.Dir, "..", "layer-x"), filepath.Join(root.Dir, "layer-")} {
		if err := s.st.Discard(store.Damage{Path: other}); err == nil {
			t.Errorf("%s may be removed", other)
		}
	}
	if err := s.st.Discard(report.Damage[0]); err != nil {
		t.Fatal(err)
	}
	if report, err = s.st.Fsck(t.Context(), check); err != nil || len(report.Damage) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}
