package assembly

import (
	"fmt"

	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/origin"
)

// ownedPaths are the paths below the state that come from the image.
type ownedPaths []ownedPath

// ownedPath is one of them, with a clone of what the image has there.
type ownedPath struct {
	path string
	tree *mount.Tree
}

// cloneOwned clones the paths of ImageOwned from the root at assembly, while nothing is mounted on it. Also after an
// error, the caller closes what it returns.
func (n Next) cloneOwned() (all ownedPaths, err error) {
	for _, p := range n.ImageOwned {
		from, err := openDirInRoot(assembly, p)
		if err != nil {
			return all, err
		}
		if from == nil {
			continue // an image without a package database
		}
		tree, err := mount.Clone(pathOf(from), false)
		from.Close()
		if err != nil {
			return all, fmt.Errorf("cannot carry %s over from the image: %w", p, err)
		}
		all = append(all, ownedPath{p, tree})
	}
	return all, nil
}

// attach mounts them over the host's state. A path that a user can make lead elsewhere is refused; a root that returns
// does without it.
func (all ownedPaths) attach(returns bool) error {
	for _, o := range all {
		if err := origin.CheckOwners(assembly, []string{o.path}); err != nil {
			if returns {
				continue
			}
			return err
		}
		at, err := placeInRoot(o.path)
		if err != nil {
			return err
		}
		if err := o.tree.Attach(at); err != nil {
			return err
		}
	}
	return nil
}

func (all ownedPaths) close() {
	for _, o := range all {
		o.tree.Close()
	}
}
