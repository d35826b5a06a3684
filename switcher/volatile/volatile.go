// Package volatile answers how a root runs on a throw-away copy of the state: an overlay in memory over every mount of
// it. It promises that nothing in such a root writes to what lies beneath, and that what lies beneath is all there for
// the root that comes next.
//
// The real mounts stay where they are in the root, and each copy is mounted over one of them. So a root without its
// copies is the root as it would be otherwise, and that is what [Beneath] shows.
package volatile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
)

// ErrState means that a root cannot run on a throw-away copy of the state.
var ErrState = errors.New("cannot run on a throw-away copy of the state")

// memorySize bounds what can be written to all copies together, in the words of tmpfs(5).
const memorySize = "50%"

// scratch is where the memory and the layers are attached while copies are made: before Linux 6.15, an overlay takes
// no detached layers.
const scratch = switcher.RunDir + "/volatile"

// Cover mounts a copy over every mount below the root that is assembled at a directory. What is at the path own stays
// real, and so do the mounts at the paths in except, which are the root's own anyway. All paths are those in the root.
func Cover(at, own string, except ...string) (err error) {
	inRoot, err := securejoin.SecureJoin(at, own)
	if err != nil {
		return fmt.Errorf("cannot resolve %s in the new root: %w", own, err)
	}
	points, err := pointsIn(at, except)
	if err != nil {
		return err
	}
	if err := checkAliases(points, inRoot); err != nil {
		return err
	}
	points = slices.DeleteFunc(points, func(m *mountinfo.Info) bool { return isBelow(m.Mountpoint, inRoot) })
	real, err := mount.Clone(inRoot, true)
	if err != nil {
		return err
	}
	defer real.Close()
	m, err := newMemory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	// All copies first: one that is attached hides the mounts below it.
	trees := make([]*mount.Tree, len(points))
	for i, p := range points {
		if trees[i], err = m.copyOf(p, strings.TrimPrefix(p.Mountpoint, at)); err != nil {
			return err
		}
		defer trees[i].Close()
	}
	for i, p := range points {
		if err := trees[i].Attach(p.Mountpoint); err != nil {
			return err
		}
	}
	return real.Attach(inRoot)
}

// Try makes a copy of each of the mounts at these points of the running root, and throws it away: it finds out whether
// [Cover] can. The error is an [ErrState]. own is as there.
func Try(points []string, own string) (err error) {
	var mounts []*mountinfo.Info
	for _, p := range points {
		at, err := facts.MountOf(p)
		if err != nil {
			return err
		}
		at.Mountpoint = p
		mounts = append(mounts, at)
	}
	if err := checkAliases(mounts, own); err != nil {
		return err
	}
	m, err := newMemory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	for _, p := range mounts {
		tree, err := m.copyOf(p, p.Mountpoint)
		if err != nil {
			return err
		}
		tree.Close()
	}
	return nil
}

// pointsIn returns the topmost mount at each mount point below a root, the outer ones first.
func pointsIn(at string, except []string) ([]*mountinfo.Info, error) {
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(at))
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	top := map[string]*mountinfo.Info{}
	for _, m := range all {
		if m.Mountpoint != at && !slices.Contains(except, strings.TrimPrefix(m.Mountpoint, at)) {
			top[m.Mountpoint] = m
		}
	}
	var points []*mountinfo.Info
	for p, m := range top {
		if mounted, err := mount.IsMountPoint(p); err != nil {
			return nil, err
		} else if mounted { // otherwise, another mount hides it
			points = append(points, m)
		}
	}
	slices.SortFunc(points, func(a, b *mountinfo.Info) int { return strings.Compare(a.Mountpoint, b.Mountpoint) })
	return points, nil
}

// checkAliases returns an ErrState if two mounts show the same files: their copies would differ from each other. What
// is below own, as the /etc of a root is, has a place of its own there.
func checkAliases(mounts []*mountinfo.Info, own string) error {
	mine, err := facts.PlaceOf(own)
	if err != nil {
		return err
	}
	for i, a := range mounts {
		for _, b := range mounts[i+1:] {
			pa, pb := facts.PlaceOfMount(a), facts.PlaceOfMount(b)
			if !pa.Within(mine) && !pb.Within(mine) && (pa.Within(pb) || pb.Within(pa)) {
				return fmt.Errorf("%w: %s and %s show the same files, and two copies of them would differ", ErrState,
					a.Mountpoint, b.Mountpoint)
			}
		}
	}
	return nil
}

// memory is where copies keep what is written to them.
type memory struct{ copies int }

func newMemory() (*memory, error) {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a mount point: %w", err)
	}
	if err := mount.Detach(scratch); err != nil {
		return nil, err
	}
	tree, err := mount.Tmpfs(0, [2]string{"mode", "0700"}, [2]string{"size", memorySize})
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	if err := tree.Attach(scratch); err != nil {
		return nil, err
	}
	return &memory{}, nil
}

// Clear unmounts what a killed arming step left behind.
func Clear() error { return mount.Detach(scratch) }

// close detaches the memory. It is freed with the last copy.
func (m *memory) close() error { return errors.Join(mount.Detach(scratch), os.Remove(scratch)) }

// copyOf returns a detached copy of a mount; the root knows it by the path p.
func (m *memory) copyOf(of *mountinfo.Info, p string) (*mount.Tree, error) {
	m.copies++
	dir := filepath.Join(scratch, strconv.Itoa(m.copies))
	l := mount.Layers{
		Lower: filepath.Join(dir, "lower"), Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Source: switcher.VolatilePrefix + p, Attrs: attrsOf(of.Options),
	}
	for _, d := range []string{dir, l.Lower, l.Upper, l.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make a layer: %w", err)
		}
	}
	lower, err := mount.Clone(of.Mountpoint, false)
	if err != nil {
		return nil, err
	}
	defer lower.Close()
	if st, err := os.Stat(lower.Path()); err != nil || !st.IsDir() {
		return nil, errors.Join(err, fmt.Errorf("%w: a single file is mounted at %s", ErrState, p))
	}
	if err := lower.Attach(l.Lower); err != nil {
		return nil, err
	}
	defer mount.Detach(l.Lower)
	// An overlay shows the attributes of its upper layer.
	if err := copies.Attributes(l.Lower, l.Upper, copies.Owners{}); err != nil {
		return nil, err
	}
	tree, err := mount.Overlay(l)
	if err != nil {
		return nil, fmt.Errorf("%w: %s (%s): %w", ErrState, p, of.FSType, err)
	}
	return tree, nil
}

// attrsOf returns the flags of a mount, by its options in mountinfo.
func attrsOf(options string) (attrs int) {
	known := map[string]int{
		"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
		"noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME, "nodiratime": unix.MOUNT_ATTR_NODIRATIME,
		"nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	}
	for o := range strings.SplitSeq(options, ",") {
		attrs |= known[o]
	}
	return attrs
}

// isBelow reports whether a path is another one, or below it.
func isBelow(p, dir string) bool { return strings.HasPrefix(p+"/", dir+"/") }
