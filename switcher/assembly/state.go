package assembly

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/carried"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/origin"
	"github.com/updatectl/updatectl/switcher/seed"
)

// ErrState means that a state path cannot be carried over without a risk to its data.
var ErrState = origin.ErrState

// origins finds out where the state paths of the root come from.
func (n Next) origins() origin.Finder {
	return origin.Finder{Return: n.Return, Present: n.Present, Collected: n.Collected, Fstab: n.Fstab,
		HostMount: n.HostMount, IsNamed: n.isNamed}
}

// isNamed reports whether a line of fstab or a mount unit of the new root mounts the state path p.
func (n Next) isNamed(p string) bool {
	return slices.Contains(n.Fstab, p) || n.known(filepath.Join(assembly, "etc/systemd/system")).HasUnit(p, ".mount")
}

// known returns what the root mounts without us. unitDirs lists where its unit files are.
func (n Next) known(unitDirs ...string) carried.Known {
	return carried.Known{
		Points: slices.Concat(n.Fstab, n.Persist), Automounts: n.Automounts, UnitDirs: unitDirs,
	}
}

// knownIn returns what the root with this pristine image mounts without us. Its /etc may not be merged yet.
func (n Next) knownIn(image string) carried.Known {
	return n.known(slices.Concat(carried.UnitDirsIn(image), []string{filepath.Join(n.Etc, "systemd/system")})...)
}

// LeftBehind returns the mounts below the state that the root with this pristine image does not get, and that nothing
// in it mounts.
func (n Next) LeftBehind(image string) ([]string, error) {
	return carried.LeftBehind(n.Persist, n.knownIn(image))
}

// leftToRoot reports whether the new root mounts the state path p without us, on first use. It is an error if nobody
// would: p is an automount with nothing mounted on it, so there is nothing to carry, and the root has no unit for it.
func (n Next) leftToRoot(p string, known carried.Known) (bool, error) {
	if known.MountsOnUse(p) {
		return true, nil
	}
	if bare, err := carried.IsBareAutomount(p); err != nil || !bare {
		return false, err
	}
	if slices.Contains(n.Fstab, p) || known.HasUnit(p, ".mount") {
		return true, nil
	}
	return false, fmt.Errorf("cannot carry %s over: it is mounted on first use, by a unit that the new root lacks; "+
		"add a line for it to /etc/fstab", p)
}

// PlanState returns the state paths that [Arm] would make. The error is an ErrState if it could not carry a path over
// without a risk to its data.
func (n Next) PlanState() (made []string, err error) {
	for _, p := range n.byDepth() {
		from, oerr := n.origins().Find(p)
		if from.Missing {
			made = append(made, p)
		}
		err = errors.Join(err, oerr)
	}
	return made, errors.Join(err, origin.CheckOwners("/", n.ImageOwned))
}

// Observe returns where the state of a root lies now, without what is not mounted yet: the new root waits for that
// itself.
func Observe(n Next) []kept.Dir {
	there, err := carried.WithoutAwaited(n.Persist)
	if err != nil {
		return nil
	}
	return kept.Observe(there, n.HostMount)
}

// Carried returns the state paths that lie on storage of their own now, to be carried over from there.
func (n Next) Carried() []string {
	n.Return = true
	there, err := carried.WithoutAwaited(n.Persist)
	if err != nil {
		there = n.Persist
	}
	var paths []string
	for _, p := range there {
		// An error means that it is there, and cannot be read just now.
		if from, err := n.origins().Find(p); err != nil || from.Dir == p {
			paths = append(paths, p)
		}
	}
	return paths
}

// carrier carries the state paths over into a root.
type carrier struct{ Next }

// makeMissing makes the directory of a state path, with what the running root has there, which is its image's, or else
// with what the image of the next root has.
func (n carrier) makeMissing(p string, from origin.Origin, image string) error {
	to := p
	if from.OnHost {
		host, err := mount.Clone(n.HostMount, false)
		if err != nil {
			return err
		}
		defer host.Close()
		if err := host.SetReadOnly(false); err != nil {
			return err
		}
		to = filepath.Join(host.Path(), p)
	}
	content, owners, err := n.contentOf(p, image)
	if err != nil {
		return err
	}
	if content == nil {
		err = os.MkdirAll(to, 0o755)
	} else {
		defer content.Close()
		err = seed.New(pathOf(content)+"/.", to, owners)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(to))
	}
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", p, err)
	}
	return nil
}

// contentOf returns what a new directory gets, nil for nothing, and how its owners are translated.
func (n carrier) contentOf(p, image string) (*os.File, copies.Owners, error) {
	if content, err := openDirInRoot("/", p); err != nil || content != nil {
		return content, copies.Owners{}, err
	}
	content, err := openDirInRoot(image, p)
	return content, n.Owners, err
}

// carryState mounts a state path of the host, with everything mounted below it, at the same path of the new root, and
// seeds what the image has there. A path that the host lacks is made first.
func (n carrier) carryState(p, image string) error {
	if left, err := n.leftToRoot(p, n.known(carried.UnitDirsIn(assembly)...)); err != nil || left {
		return err
	}
	from, err := n.origins().Find(p)
	if err != nil || from.Dir == "" {
		return err
	}
	at, err := placeInRoot(p)
	if errors.Is(err, unix.EROFS) && n.Return { // it ran before without this path, and its graft has no mount point for it
		return nil
	}
	if err != nil {
		return err
	}
	if from.Missing {
		if n.Volatile {
			return notMade(p)
		}
		if err := n.makeMissing(p, from, image); err != nil {
			return err
		}
	}
	// If the image links /home into /var, the mount came with /var.
	same, err := sameDirectory(from.Dir, at)
	if err != nil {
		return err
	}
	if !from.OnHost && !n.Volatile {
		if err := n.seedState(p, p, image); err != nil {
			return err
		}
	}
	if !same {
		if err := n.mountState(p, from, at); err != nil {
			return err
		}
	}
	if from.OnHost && !n.Volatile { // until now it was read-only
		return n.seedState(p, at, image)
	}
	return nil
}

// seedState seeds the host's p, which is at the directory to, with what the image has there.
func (n carrier) seedState(p, to, image string) error {
	if n.Seeded {
		return nil
	}
	from, err := openDirInRoot(image, p)
	if from == nil {
		return err
	}
	defer from.Close()
	var skip []string
	for _, owned := range n.ImageOwned {
		if rel, err := filepath.Rel(p, owned); err == nil {
			skip = append(skip, rel)
		}
	}
	// With the dot, it is the directory, not the link in /proc.
	_, err = seed.Missing(pathOf(from)+"/.", to, n.Owners, skip)
	return err
}

// mountState mounts the state path p at a directory of the new root, without what belongs to the running one and to
// processes that end with it.
func (n carrier) mountState(p string, from origin.Origin, at string) error {
	before, err := os.Stat(from.Dir)
	if err != nil {
		return fmt.Errorf("cannot carry %s over: %w", p, err)
	}
	tree, err := mount.Clone(from.Dir, !from.OnHost)
	if err != nil {
		return err
	}
	defer tree.Close()
	now, err := os.Stat(tree.Path())
	switch {
	case err != nil:
		return fmt.Errorf("cannot look at the clone of %s: %w", p, err)
	case os.SameFile(before, now):
	case n.isNamed(p): // systemd unmounts a nofail mount at any time: this is the directory below it
		return nil
	default:
		return fmt.Errorf("cannot carry %s over: it was unmounted meanwhile; add a line for it to /etc/fstab", p)
	}
	if from.OnHost {
		if err := tree.SetReadOnly(false); err != nil {
			return err
		}
	}
	if err := tree.Attach(at); err != nil {
		return err
	}
	if err := n.dropGrafted(at); err != nil {
		return err
	}
	return carried.DropUnwanted(at, p, n.known(carried.UnitDirsIn(assembly)...))
}

// dropGrafted unmounts what the running image root has mounted in the state at this path: the next root mounts its own,
// and mounts of former roots would pile up. So it does with what is mounted there from the directory of a root.
func (n carrier) dropGrafted(at string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(at))
	if err != nil {
		return fmt.Errorf("cannot read the mounts: %w", err)
	}
	collected, err := n.origins().CollectedPlaces()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		place := facts.PlaceOfMount(m)
		if !place.OfImage() && !slices.ContainsFunc(collected, place.Within) {
			continue
		}
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}
