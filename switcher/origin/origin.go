// Package origin answers where a state path of the next root comes from. It promises that no data are lost or shown to
// others: what it is not sure of is an error, and what may be collected or led elsewhere by a user is refused.
package origin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/switcher/carried"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
)

// ErrState means that a state path cannot be carried over without a risk to its data.
var ErrState = errors.New("cannot be kept")

// Origin is where a state path of the next root comes from.
type Origin struct {
	// Dir is the directory to carry over, "" for none.
	Dir string
	// OnHost is whether Dir is in the host root, which an image root has mounted read-only.
	OnHost bool
	// Missing is whether Dir has to be made first.
	Missing bool
}

// Finder finds out where the state paths of a root come from.
type Finder struct {
	// Return, Present, Collected, Fstab and HostMount are those of the root to arm.
	Return                    bool
	Present, Collected, Fstab []string
	HostMount                 string
	// IsNamed reports whether a line of fstab or a mount unit of the new root mounts a state path.
	IsNamed func(p string) bool
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

// Find returns where a state path comes from. Only what certainly does not exist counts as missing. The error is an
// ErrState, or one of the operating system.
func (n Finder) Find(p string) (Origin, error) {
	from, err := n.find(p)
	if err == nil && from.Dir != p && slices.Contains(n.Present, p) && !slices.Contains(n.Fstab, p) {
		err = errors.New("it was there when the switch was announced, and is not any more; is its disk unmounted?")
	}
	switch {
	case errors.Is(err, ErrState):
		return Origin{}, fmt.Errorf("%s %w", p, err)
	case err != nil:
		return Origin{}, fmt.Errorf("cannot carry %s over: %w", p, err)
	}
	return from, nil
}

func (n Finder) find(p string) (Origin, error) {
	if !n.Return { // what is carried over anyway must not be missing in a root that had it
		if why, err := owned.Redirect("/", p); err != nil || why != "" {
			return Origin{}, errors.Join(err, refusal(why))
		}
	}
	switch st, err := os.Stat(p); {
	case errors.Is(err, fs.ErrNotExist):
		return n.originOfMissing(p)
	case errors.Is(err, unix.ENOTDIR) || err == nil && !st.IsDir():
		return n.refuse("it is no directory; take it out of [state] persist")
	case err != nil:
		return Origin{}, err
	}
	if mounted, err := mount.IsMountPoint(p); err != nil {
		return Origin{}, err
	} else if !mounted && n.IsNamed(p) {
		return Origin{}, nil // unmounted by now, as network file systems are: the new root mounts it
	}
	if bare, err := carried.IsBareAutomount(p); err != nil || bare {
		return Origin{}, err // the new root mounts it on first use; looking into it would mount it here
	}
	place, err := facts.PlaceOf(p)
	if err != nil {
		return Origin{}, err
	}
	resolved, err := filepath.EvalSymlinks(p)
	if err != nil {
		return Origin{}, err
	}
	collected, err := n.isCollected(place)
	switch {
	case err != nil:
		return Origin{}, err
	case carried.IsBelow(resolved, "/etc"):
		if collected || !n.Return {
			return n.refuse("it lies in /etc, and every root has its own; use [state] adopt for what is in /etc")
		}
	case collected:
		return n.refuse("it lies in the directory of a root, which gc may remove; move the data to a directory of its own")
	case place.OfImage():
		return n.originOnHost(p)
	}
	return Origin{Dir: p}, nil
}

// refuse returns the reason why a path cannot be carried over. A root that ran before is not refused for it: it gets
// what it can have, because the way back must not depend on the configuration.
func (n Finder) refuse(reason string) (Origin, error) {
	if n.Return {
		return Origin{}, nil
	}
	return Origin{}, refusal(reason)
}

// refusal returns an ErrState with a reason, nil without one.
func refusal(reason string) error {
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrState, reason)
}

// originOfMissing returns the origin of a state path that the running root does not have.
func (n Finder) originOfMissing(p string) (Origin, error) {
	if slices.Contains(n.Fstab, p) {
		return Origin{}, nil
	}
	if _, err := os.Lstat(p); err == nil {
		return n.refuse("it is a link to a directory that does not exist; mount or make that, " +
			"or take the link out of [state] persist")
	}
	for _, point := range n.Fstab {
		if mounted, err := mount.IsMountPoint(point); carried.IsBelow(p, point) && (err != nil || !mounted) {
			return n.refuse("it is below " + point + " of fstab, which is not mounted; mount that first")
		}
	}
	above := filepath.Dir(p)
	for !isThere(above) {
		above = filepath.Dir(above)
	}
	place, err := facts.PlaceOf(above)
	if err != nil {
		return Origin{}, err
	}
	collected, err := n.isCollected(place)
	switch {
	case err != nil:
		return Origin{}, err
	case collected:
		return n.refuse("it would lie in the directory of a root; name another one")
	case place.OfImage():
		return n.originOnHost(p)
	case n.Return:
		return Origin{}, nil
	}
	return Origin{Dir: p, Missing: true}, nil
}

// originOnHost returns the origin of a state path that an image root has no storage for: the host root's directory,
// which is what the host root itself uses. No link is followed there, because it would lead into the running root.
func (n Finder) originOnHost(p string) (Origin, error) {
	if mounted, err := mount.IsMountPoint(n.HostMount); err != nil {
		return Origin{}, err
	} else if !mounted {
		return n.refuse("the host root, where it would be, is not mounted at " + n.HostMount +
			"; a full reboot mounts it again")
	}
	from := Origin{Dir: filepath.Join(n.HostMount, p), OnHost: true}
	dir := n.HostMount
	if why, err := owned.Redirect(n.HostMount, p); err != nil || why != "" && !n.Return {
		return Origin{}, errors.Join(err, refusal(why))
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		dir = filepath.Join(dir, name)
		st, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			from.Missing = true
		case err != nil:
			return Origin{}, err
		case !st.IsDir():
			return n.refuse("on the host root, " + strings.TrimPrefix(dir, n.HostMount) +
				" is no directory; name another one")
		}
		if from.Missing {
			break
		}
	}
	if from.Missing && n.Return {
		return Origin{}, nil
	}
	return from, nil
}

// isCollected reports whether a place is in a directory that gc removes things from.
func (n Finder) isCollected(place facts.Place) (bool, error) {
	places, err := n.CollectedPlaces()
	return slices.ContainsFunc(places, place.Within), err
}

// CollectedPlaces returns where the directories are that gc removes things from.
func (n Finder) CollectedPlaces() (places []facts.Place, err error) {
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
