package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/inventory"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/store"
)

// errStartAgain means that the tree was built by an inventory whose layer is fetched now.
var errStartAgain = errors.New("layers that are here are fetched all the same")

// reuse says which inventories a run of [Stage] uses.
type reuse struct {
	roots   []store.Root             // whose inventories may be used
	fetched map[inventory.Layer]bool // layers whose inventories in roots led to nothing
	used    []used                   // the inventories of roots that the tree is built by
}

// newReuse returns what an image may use. Only the root of a sealed image proves that the inventories were right: who
// was root in a former root could have written them.
func newReuse(st *store.Store, img *Image) *reuse {
	r := &reuse{fetched: map[inventory.Layer]bool{}}
	if img.isSealed() {
		r.roots = store.Undamaged(st)
	}
	return r
}

// used is an inventory by which the tree is built.
type used struct {
	file  string
	layer inventory.Layer
}

// replay adds a layer to the tree by its inventory. It returns false if the layer has to be fetched.
func (s *stager) replay(ctx context.Context, l inventory.Layer) (done bool, err error) {
	file := s.find(l)
	if file == nil {
		return false, nil
	}
	defer file.Close()
	err = s.tree.Replay(during(ctx, file.Entries()))
	if !errors.Is(err, inventory.ErrUnusable) {
		return true, s.doubt(ctx, err)
	}
	own := s.staging.Inventory(l)
	if rmErr := os.Remove(own); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		return true, rmErr
	}
	return true, s.fetchAgain(err, l)
}

// during ends entries with the error of a context.
func during(ctx context.Context, entries iter.Seq2[layer.Noted, error]) iter.Seq2[layer.Noted, error] {
	return func(yield func(layer.Noted, error) bool) {
		for e, err := range entries {
			if !yield(e, cmp.Or(ctx.Err(), err)) {
				return
			}
		}
	}
}

// find opens the inventory of a layer, and returns nil if the layer has to be fetched.
func (s *stager) find(l inventory.Layer) *inventory.File {
	if l.Blob.Validate() != nil {
		return nil
	}
	// One that this run wrote is as good as the layer, which was verified.
	file := s.open(s.staging.Inventory(l), l)
	for _, r := range s.reuse.roots {
		if file != nil || s.reuse.fetched[l] {
			break
		}
		if file = s.open(r.Inventory(l), l); file != nil {
			s.reuse.used = append(s.reuse.used, used{r.Inventory(l), l})
		}
	}
	return file
}

// open opens an inventory, and returns nil if it is not there or damaged. Then nothing of it is in the tree yet, so
// only its layer is fetched.
func (s *stager) open(name string, l inventory.Layer) *inventory.File {
	file, err := inventory.Open(name, l)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = s.fetchAgain(err, l)
	}
	return file
}

// fetchAgain marks layers to be fetched, warns, and returns the error that makes [Stage] start again. Other roots may
// have the same file, by hard links, so it counts for their inventories, too.
func (s *stager) fetchAgain(why error, layers ...inventory.Layer) error {
	for _, l := range layers {
		s.reuse.fetched[l] = true
	}
	err := fmt.Errorf("%w: %w", errStartAgain, why)
	s.src.Warn(err)
	return err
}

// doubt takes an error about the tree, or about the image that is made from it. If inventories of roots led to it, it
// starts again without them: what was signed is in the layers.
func (s *stager) doubt(ctx context.Context, err error) error {
	if err == nil || len(s.reuse.used) == 0 || ctx.Err() != nil {
		return err
	}
	return s.fetchAgain(err, layersOf(s.reuse.used)...)
}

// layersOf returns the layers of inventories.
func layersOf(list []used) []inventory.Layer {
	layers := make([]inventory.Layer, 0, len(list))
	for _, u := range list {
		layers = append(layers, u.layer)
	}
	return layers
}

// checkReused checks that every object of the tree is here and right, if inventories were used. Only what the tree
// refers to counts: what upper layers replace may be gone. Layers with an object that is not here are fetched.
func (s *stager) checkReused(ctx context.Context) error {
	if len(s.reuse.used) == 0 {
		return nil
	}
	missing := map[fsverity.Digest]int64{}
	err := s.tree.Walk(func(_ string, n *layer.Inode) error {
		if n.IsRegular() && n.Size > 0 {
			missing[n.Object] = n.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	for d, size := range missing {
		if err := ctx.Err(); err != nil { // every object may have to be read
			return err
		}
		if s.staging.Has(d, size) {
			delete(missing, d)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	why := fmt.Errorf("objects that are missing or have other content: %d", len(missing))
	var listing []used
	for _, u := range s.reuse.used {
		if u.lists(missing) {
			listing = append(listing, u)
		}
	}
	if len(listing) == 0 { // it was in a layer that this run fetched
		listing = s.reuse.used
	}
	return s.fetchAgain(why, layersOf(listing)...)
}

// lists reports whether an inventory lists one of these objects, or cannot be read any more.
func (u used) lists(objects map[fsverity.Digest]int64) bool {
	file, err := inventory.Open(u.file, u.layer)
	if err != nil {
		return true
	}
	defer file.Close()
	for e, err := range file.Entries() {
		if _, listed := objects[e.Object]; listed || err != nil {
			return true
		}
	}
	return false
}

// keepReused gives the root the inventories that it was built by. A root without them only costs a later one more.
func (s *stager) keepReused() {
	for _, u := range s.reuse.used {
		if err := s.staging.KeepInventory(u.file); err != nil {
			s.src.Warn(err)
		}
	}
}
