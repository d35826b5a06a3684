package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/inventory"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
)

// errStartAgain means that the tree was built by an inventory that is not used again.
var errStartAgain = errors.New("layers that are here are fetched all the same")

// reuse says which inventories a run of [Stage] uses.
type reuse struct {
	roots      []store.Root    // whose inventories may be used
	distrusted map[string]bool // files that led to nothing
	used       []used          // those of roots that the tree is built by
}

// used is an inventory by which the tree is built.
type used struct {
	file  string
	layer inventory.Layer
}

// replay adds a layer to the tree by its inventory. It returns false if the layer has to be fetched.
func (s *stager) replay(l inventory.Layer) (done bool, err error) {
	if l.Blob.Validate() != nil {
		return false, nil
	}
	// One that this run wrote is as good as the layer, which was verified.
	if file := s.open(s.staging.Inventory(l), l); file != nil {
		defer file.Close()
		return true, s.tree.Replay(file.Entries())
	}
	for _, r := range s.reuse.roots {
		name := r.Inventory(l)
		file := s.open(name, l)
		if file == nil {
			continue
		}
		defer file.Close()
		u := used{name, l}
		s.reuse.used = append(s.reuse.used, u)
		if err := s.tree.Replay(file.Entries()); err != nil {
			return true, s.doubt(fmt.Errorf("%s: %w", name, err))
		}
		return true, nil
	}
	return false, nil
}

// open opens an inventory, and returns nil if it is not there or not to be used.
func (s *stager) open(name string, l inventory.Layer) *inventory.File {
	if s.reuse.distrusted[name] {
		return nil
	}
	file, err := inventory.Open(name, l)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.src.Warn(fmt.Errorf("%w: %w", errStartAgain, err))
	}
	return file
}

// distrust starts again without these inventories.
func (s *stager) distrust(why error, files []used) error {
	for _, u := range files {
		s.reuse.distrusted[u.file] = true
	}
	err := fmt.Errorf("%w: %w", errStartAgain, why)
	s.src.Warn(err)
	return err
}

// doubt takes an error about the tree. If inventories led to it, it starts again without them: what was signed is in
// the layers.
func (s *stager) doubt(err error) error {
	isAboutTree := errors.Is(err, verify.ErrNotTrusted) || errors.Is(err, ErrNotBootable) ||
		errors.Is(err, inventory.ErrUnusable)
	if len(s.reuse.used) == 0 || !isAboutTree {
		return err
	}
	return s.distrust(err, s.reuse.used)
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
	why := fmt.Errorf("%w: %d of its objects are missing or have other content", store.ErrDamaged, len(missing))
	var listing []used
	for _, u := range s.reuse.used {
		if u.lists(missing) {
			listing = append(listing, u)
		}
	}
	if len(listing) == 0 { // what this run fetched is gone
		return why
	}
	return s.distrust(why, listing)
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

// keepReused gives the root the inventories that it was built by.
func (s *stager) keepReused() error {
	for _, u := range s.reuse.used {
		if err := s.staging.KeepInventory(u.file); err != nil {
			return err
		}
	}
	return nil
}
