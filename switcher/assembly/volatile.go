package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/mountinfo"

	"github.com/updatectl/updatectl/switcher/carried"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/volatile"
)

// ErrVolatile means that a root cannot run on a throw-away copy of the state.
var ErrVolatile = volatile.ErrState

// CheckVolatile returns an [ErrVolatile] unless the root can run on a throw-away copy of the state, by what is mounted
// now. It makes the copies and throws them away.
func CheckVolatile(n Next) error {
	image, err := n.Open()
	if err != nil {
		return err
	}
	defer image.Close()
	known := n.knownIn(image.Path())
	var points []string
	for _, p := range n.byDepth() {
		if left, err := n.leftToRoot(p, known); err != nil {
			return err
		} else if left {
			return mountedByRoot(p)
		}
		from, err := n.origins().Find(p)
		switch {
		case err != nil:
			return err
		case from.Missing:
			return notMade(p)
		case from.Dir == "":
			return mountedByRoot(p)
		}
		below, err := carried.Below(p, known)
		if err != nil {
			return err
		}
		points = append(append(points, from.Dir), below...)
	}
	if err := checkNamed(n, "/"); err != nil {
		return err
	}
	if points, err = mountedAt(points); err != nil {
		return err
	}
	return volatile.Try(points, n.Own)
}

// mountedAt returns those of the directories that a copy is made of, each once: a state path that is a link leads to a
// directory that another one has.
func mountedAt(dirs []string) (points []string, err error) {
	var places []facts.Place
	for _, dir := range dirs {
		m, err := facts.MountOf(dir)
		if err != nil {
			return nil, err
		}
		if isNetwork(m) {
			return nil, fmt.Errorf("%w: %s is on a server (%s), which the root mounts itself", ErrVolatile, dir, m.FSType)
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, err
		}
		mounted, err := mount.IsMountPoint(real)
		if err != nil {
			return nil, err
		}
		place, isPart := facts.PlaceOfMount(m), false
		for i, above := range points {
			isPart = isPart || place.Within(places[i]) && carried.IsBelow(real, above)
		}
		if mounted || !isPart {
			points, places = append(points, real), append(places, place)
		}
	}
	return points, nil
}

// isNetwork reports whether a file system is on another machine. Such a one is unmounted when a root is armed, and the
// new root mounts it anew.
func isNetwork(m *mountinfo.Info) bool {
	return slices.ContainsFunc([]string{"nfs", "cifs", "smb", "ceph", "gluster", "lustre", "afs", "9p", "fuse"},
		func(kind string) bool { return strings.HasPrefix(m.FSType, kind) })
}

// checkNamed returns an ErrVolatile for a mount at a state path, or below one, that fstab or a mount unit names and
// that is not there: the root would mount it itself, over the copy. The state is below the directory root.
func checkNamed(n Next, root string) error {
	for _, point := range slices.Concat(n.Fstab, n.Automounts) {
		if !slices.ContainsFunc(n.Persist, func(p string) bool { return carried.IsBelow(point, p) }) {
			continue
		}
		at, err := securejoin.SecureJoin(root, point)
		if err != nil {
			return err
		}
		mounts, err := mountinfo.GetMounts(facts.MountedAt(at))
		if err != nil {
			return fmt.Errorf("cannot read the mounts: %w", err)
		}
		if len(mounts) == 0 || mounts[len(mounts)-1].FSType == "autofs" {
			return mountedByRoot(point)
		}
	}
	return nil
}

func mountedByRoot(p string) error {
	return fmt.Errorf("%w: the root would mount %s itself, as it really is; mount it first, or take it out of fstab",
		ErrVolatile, p)
}

func notMade(p string) error {
	return fmt.Errorf("%w: %s, which [state] persist names, does not exist; make it first", ErrVolatile, p)
}

// cover lays the throw-away copies over the state of a volatile root, and over its /etc. What the image has there is
// seeded into the copies.
func (n carrier) cover(image string) error {
	if !n.Volatile {
		return nil
	}
	if err := checkNamed(n.Next, assembly); err != nil {
		return err
	}
	var ours []string
	if n.needsTmp() {
		ours = append(ours, "/tmp")
	}
	if err := volatile.Cover(assembly, n.Own, ours...); err != nil {
		return err
	}
	for _, p := range n.byDepth() {
		at, err := securejoin.SecureJoin(assembly, p)
		if err != nil {
			return fmt.Errorf("cannot resolve %s in the new root: %w", p, err)
		}
		place, err := facts.PlaceOf(at)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil || !place.Volatile() {
			return errors.Join(err, mountedByRoot(p))
		}
		if err := n.seedState(p, at, image); err != nil {
			return err
		}
	}
	return nil
}
