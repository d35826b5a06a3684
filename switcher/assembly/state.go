package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/seed"
)

// ErrState means that a state path cannot be carried over without a risk to its data.
var ErrState = errors.New("cannot be kept")

// origin is where a state path of the next root comes from.
type origin struct {
	// dir is the directory to carry over, "" for none.
	dir string
	// onHost is whether dir is in the host root, which an image root has mounted read-only.
	onHost bool
	// missing is whether dir has to be made first.
	missing bool
}

// finder finds out where the state paths of a root come from.
type finder struct{ Next }

// PlanState returns the state paths that [Arm] would make. The error is an ErrState if it could not carry a path over
// without a risk to its data.
func (n Next) PlanState() (made []string, err error) {
	for _, p := range n.byDepth() {
		from, oerr := finder{n}.originOf(p)
		if from.missing {
			made = append(made, p)
		}
		err = errors.Join(err, oerr)
	}
	return made, errors.Join(err, CheckOwners("/", n.ImageOwned))
}

// CheckOwners returns an ErrState for each path of a tree that others than root can make lead elsewhere.
func CheckOwners(root string, paths []string) error {
	var errs []error
	for _, p := range paths {
		why, err := owned.Redirect(root, p)
		if err == nil && why != "" {
			err = fmt.Errorf("%s %w: %s", p, ErrState, why)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Carried returns the state paths that lie on storage of their own now, to be carried over from there.
func (n Next) Carried() []string {
	n.Return = true
	var carried []string
	for _, p := range n.Persist {
		// An error means that it is there, and cannot be read just now.
		if from, err := (finder{n}).originOf(p); err != nil || from.dir == p {
			carried = append(carried, p)
		}
	}
	return carried
}

// originOf returns where a state path comes from. Only what certainly does not exist counts as missing. The error is an
// ErrState, or one of the operating system.
func (n finder) originOf(p string) (origin, error) {
	from, err := n.findOrigin(p)
	if err == nil && from.dir != p && slices.Contains(n.Present, p) && !slices.Contains(n.Fstab, p) {
		err = errors.New("it was there when the switch was announced, and is not any more; is its disk unmounted?")
	}
	switch {
	case errors.Is(err, ErrState):
		return origin{}, fmt.Errorf("%s %w", p, err)
	case err != nil:
		return origin{}, fmt.Errorf("cannot carry %s over: %w", p, err)
	}
	return from, nil
}

func (n finder) findOrigin(p string) (origin, error) {
	if !n.Return { // what is carried over anyway must not be missing in a root that had it
		if why, err := owned.Redirect("/", p); err != nil || why != "" {
			return origin{}, errors.Join(err, refusal(why))
		}
	}
	switch st, err := os.Stat(p); {
	case errors.Is(err, fs.ErrNotExist):
		return n.originOfMissing(p)
	case errors.Is(err, unix.ENOTDIR) || err == nil && !st.IsDir():
		return n.refuse("it is no directory; take it out of [state] persist")
	case err != nil:
		return origin{}, err
	}
	if mounted, err := mount.IsMountPoint(p); err != nil {
		return origin{}, err
	} else if !mounted && n.isNamed(p) {
		return origin{}, nil // unmounted by now, as network file systems are: the new root mounts it
	}
	if bare, err := isBareAutomount(p); err != nil || bare {
		return origin{}, err // the new root mounts it on first use; looking into it would mount it here
	}
	place, err := facts.PlaceOf(p)
	if err != nil {
		return origin{}, err
	}
	resolved, err := filepath.EvalSymlinks(p)
	if err != nil {
		return origin{}, err
	}
	collected, err := n.isCollected(place)
	switch {
	case err != nil:
		return origin{}, err
	case isBelow(resolved, "/etc"):
		if collected || !n.Return {
			return n.refuse("it lies in /etc, and every root has its own; use [state] adopt for what is in /etc")
		}
	case collected:
		return n.refuse("it lies in the directory of a root, which gc may remove; move the data to a directory of its own")
	case place.OfImage():
		return n.originOnHost(p)
	}
	return origin{dir: p}, nil
}

// isNamed reports whether a line of fstab or a mount unit of the new root mounts the state path p.
func (n Next) isNamed(p string) bool {
	return slices.Contains(n.Fstab, p) || n.known(filepath.Join(assembly, "etc/systemd/system")).hasUnit(p, ".mount")
}

// refuse returns the reason why a path cannot be carried over. A root that ran before is not refused for it: it gets
// what it can have, because the way back must not depend on the configuration.
func (n finder) refuse(reason string) (origin, error) {
	if n.Return {
		return origin{}, nil
	}
	return origin{}, refusal(reason)
}

// refusal returns an ErrState with a reason, nil without one.
func refusal(reason string) error {
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrState, reason)
}

// originOfMissing returns the origin of a state path that the running root does not have.
func (n finder) originOfMissing(p string) (origin, error) {
	if slices.Contains(n.Fstab, p) {
		return origin{}, nil
	}
	if _, err := os.Lstat(p); err == nil {
		return n.refuse("it is a link to a directory that does not exist; mount or make that, " +
			"or take the link out of [state] persist")
	}
	for _, point := range n.Fstab {
		if mounted, err := mount.IsMountPoint(point); isBelow(p, point) && (err != nil || !mounted) {
			return n.refuse("it is below " + point + " of fstab, which is not mounted; mount that first")
		}
	}
	above := filepath.Dir(p)
	for !isThere(above) {
		above = filepath.Dir(above)
	}
	place, err := facts.PlaceOf(above)
	if err != nil {
		return origin{}, err
	}
	collected, err := n.isCollected(place)
	switch {
	case err != nil:
		return origin{}, err
	case collected:
		return n.refuse("it would lie in the directory of a root; name another one")
	case place.OfImage():
		return n.originOnHost(p)
	case n.Return:
		return origin{}, nil
	}
	return origin{dir: p, missing: true}, nil
}

// originOnHost returns the origin of a state path that an image root has no storage for: the host root's directory,
// which is what the host root itself uses. No link is followed there, because it would lead into the running root.
func (n finder) originOnHost(p string) (origin, error) {
	if mounted, err := mount.IsMountPoint(n.HostMount); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return origin{}, err
	} else if !mounted {
		return n.refuse("the host root, where it would be, is not mounted at " + n.HostMount +
			"; a full reboot mounts it again")
	}
	from := origin{dir: filepath.Join(n.HostMount, p), onHost: true}
	dir := n.HostMount
	if why, err := owned.Redirect(n.HostMount, p); err != nil || why != "" && !n.Return {
		return origin{}, errors.Join(err, refusal(why))
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		dir = filepath.Join(dir, name)
		st, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			from.missing = true
		case err != nil:
			return origin{}, err
		case !st.IsDir():
			return n.refuse("on the host root, " + strings.TrimPrefix(dir, n.HostMount) +
				" is no directory; name another one")
		}
		if from.missing {
			break
		}
	}
	if from.missing && n.Return {
		return origin{}, nil
	}
	return from, nil
}

// isCollected reports whether a place is in a directory that gc removes things from.
func (n finder) isCollected(place facts.Place) (bool, error) {
	places, err := n.collectedPlaces()
	return slices.ContainsFunc(places, place.Within), err
}

// collectedPlaces returns where the directories are that gc removes things from.
func (n finder) collectedPlaces() (places []facts.Place, err error) {
	for _, dir := range n.Collected {
		switch place, err := facts.PlaceOf(dir); {
		case err == nil:
			places = append(places, place)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return places, nil
}

// isThere reports whether something exists at a path, whatever that is and wherever it leads.
func isThere(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// makeMissing makes the directory of a state path, with what the running root has there, which is its image's, or else
// with what the image of the next root has.
func (n finder) makeMissing(p string, from origin, image string) error {
	to := p
	if from.onHost {
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
func (n finder) contentOf(p, image string) (*os.File, copies.Owners, error) {
	if content, err := openDirInRoot("/", p); err != nil || content != nil {
		return content, copies.Owners{}, err
	}
	content, err := openDirInRoot(image, p)
	return content, n.Owners, err
}

// carryState mounts a state path of the host, with everything mounted below it, at the same path of the new root, and
// seeds what the image has there. A path that the host lacks is made first.
func (n finder) carryState(p, image string) error {
	if left, err := n.leftToRoot(p, n.known(unitDirsIn(assembly)...)); err != nil || left {
		return err
	}
	from, err := n.originOf(p)
	if err != nil || from.dir == "" {
		return err
	}
	at, err := placeInRoot(p)
	if errors.Is(err, unix.EROFS) && n.Return { // it ran before without this path, and its graft has no mount point for it
		return nil
	}
	if err != nil {
		return err
	}
	if from.missing {
		if err := n.makeMissing(p, from, image); err != nil {
			return err
		}
	}
	// If the image links /home into /var, the mount came with /var.
	same, err := sameDirectory(from.dir, at)
	if err != nil {
		return err
	}
	if !from.onHost {
		if err := n.seedState(p, p, image); err != nil {
			return err
		}
	}
	if !same {
		if err := n.mountState(p, from, at); err != nil {
			return err
		}
	}
	if from.onHost { // until now it was read-only
		return n.seedState(p, at, image)
	}
	return nil
}

// mountState mounts the state path p at a directory of the new root, without what belongs to the running one and to
// processes that end with it.
func (n finder) mountState(p string, from origin, at string) error {
	before, err := os.Stat(from.dir)
	if err != nil {
		return fmt.Errorf("cannot carry %s over: %w", p, err)
	}
	tree, err := mount.Clone(from.dir, !from.onHost)
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
	if from.onHost {
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
	return dropUnwanted(at, p, n.known(unitDirsIn(assembly)...))
}

// dropGrafted unmounts what the running image root has mounted in the state at this path: the next root mounts its own,
// and mounts of former roots would pile up. So it does with what is mounted there from the directory of a root.
func (n finder) dropGrafted(at string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(at))
	if err != nil {
		return fmt.Errorf("cannot read the mounts: %w", err)
	}
	collected, err := n.collectedPlaces()
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
