// Package carried answers which mounts below the state the next root gets: disks, and what it names itself. What
// belongs to processes of the running root stays behind.
package carried

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Known is what a root mounts without us: by lines of its fstab, and by unit files.
type Known struct {
	Points     []string // mount points that somebody named
	Automounts []string // those that are mounted on first use
	UnitDirs   []string // where the root has unit files, as paths in this process
}

// LeftBehind returns the mounts below these state paths that a root does not get, and that nothing in it mounts.
func LeftBehind(persist []string, known Known) ([]string, error) {
	var left []string
	for _, p := range persist {
		mounts, err := mountsBelow(p)
		if err != nil {
			return nil, err
		}
		_, drop := sortMounts(mounts, p, p, known)
		for _, m := range mounts {
			grafted := strings.HasPrefix(m.Source, switcher.SourcePrefix)
			if slices.Contains(drop, m.Mountpoint) && !grafted && !known.MountsOnUse(m.Mountpoint) &&
				!known.Names(m.Mountpoint) {
				left = append(left, m.Mountpoint)
			}
		}
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}

// Below returns the mount points below a state path that a root gets with it.
func Below(p string, known Known) ([]string, error) {
	mounts, err := mountsBelow(p)
	if err != nil {
		return nil, err
	}
	carry, _ := sortMounts(mounts, p, p, known)
	return carry, nil
}

// UnitDirsIn returns where the root at tree has unit files.
func UnitDirsIn(tree string) []string {
	return []string{filepath.Join(tree, "etc/systemd/system"), filepath.Join(tree, switcher.UnitDir)}
}

// Names reports whether somebody wants something mounted at this point of the root.
func (k Known) Names(point string) bool {
	return slices.Contains(k.Points, point) || k.HasUnit(point, ".mount")
}

// MountsOnUse reports whether the root mounts this point on first use.
func (k Known) MountsOnUse(point string) bool {
	return slices.Contains(k.Automounts, point) || k.HasUnit(point, ".automount")
}

// HasUnit reports whether the root has a unit of this kind for a mount point.
func (k Known) HasUnit(point, suffix string) bool {
	name := unit.UnitNamePathEscape(point) + suffix
	return slices.ContainsFunc(k.UnitDirs, func(dir string) bool { return rootfs.Exists(filepath.Join(dir, name)) })
}

// fate is what becomes of the mounts at a mount point below the state.
type fate byte

const (
	carried fate = iota
	dropped
	droppedWithAllBelow
)

// sortMounts decides about the mounts below a state path, given in the order of mountinfo. They are at the directory
// at in this process, and below p in the new root; what is mounted at the path itself is carried and not listed. It
// returns the mount points to carry, as paths in the root, and the mounts to drop, as paths in this process.
//
// A mount is carried if it is a disk, or if fstab or a unit names it. The rest belongs to processes that end with the
// old root, such as overlays and tmpfs of containers, FUSE, and binds into a chroot: nobody would ever unmount their
// clones. What the new root mounts on first use is left to it, because systemd starts no automount where something is
// mounted.
func sortMounts(mounts []*mountinfo.Info, at, p string, known Known) (carry, drop []string) {
	stacks, points := map[string][]*mountinfo.Info{}, []string{}
	for _, m := range mounts {
		if m.Mountpoint == at {
			continue
		}
		if stacks[m.Mountpoint] == nil {
			points = append(points, m.Mountpoint)
		}
		stacks[m.Mountpoint] = append(stacks[m.Mountpoint], m)
	}
	inRoot := func(point string) string { return filepath.Join(p, strings.TrimPrefix(point, at)) }
	fates := map[string]fate{}
	for _, point := range points {
		fates[point] = fateOf(stacks[point], inRoot(point), known)
	}
	isGone := func(point string) bool {
		return slices.ContainsFunc(points, func(above string) bool {
			return fates[above] == droppedWithAllBelow && IsBelow(point, above)
		})
	}
	hasCarriedBelow := func(point string) bool {
		return slices.ContainsFunc(points, func(below string) bool {
			return fates[below] == carried && IsBelow(below, point) && !isGone(below)
		})
	}
	for _, m := range mounts {
		point := m.Mountpoint
		switch {
		case point == at:
		case isGone(point) || fates[point] != carried && !hasCarriedBelow(point):
			drop = append(drop, point)
		case fates[point] == carried && m == stacks[point][0]:
			carry = append(carry, inRoot(point))
		}
	}
	return carry, drop
}

// IsBelow reports whether a path is another one, or below it.
func IsBelow(p, dir string) bool { return strings.HasPrefix(p+"/", dir+"/") }

// fateOf decides about the mounts stacked at one point, the topmost of which is seen.
func fateOf(stack []*mountinfo.Info, point string, known Known) fate {
	top := stack[len(stack)-1]
	switch {
	case known.MountsOnUse(point), top.FSType == "autofs":
		return droppedWithAllBelow
	case strings.HasPrefix(top.Source, switcher.SourcePrefix): // of the running image root; the next one has its own
		return droppedWithAllBelow
	case strings.HasPrefix(top.FSType, "fuse"): // its server ends with the old root; what is named is mounted anew
		return dropped
	case isDisk(top), known.Names(point):
		return carried
	}
	return dropped
}

// isDisk reports whether a mount is a whole file system on a disk of this machine, and not a directory of one that is
// bound elsewhere. In btrfs, a subvolume is a file system, too. Some file systems have no device as their source.
func isDisk(m *mountinfo.Info) bool {
	switch m.FSType {
	case "btrfs", "zfs", "ubifs":
		return true
	case "virtiofs", "9p":
		return m.Root == "/"
	}
	return m.Root == "/" && strings.HasPrefix(m.Source, "/dev/")
}

// DropUnwanted unmounts what the new root does not get of the mounts below a state path, which was cloned to at.
func DropUnwanted(at, p string, known Known) error {
	mounts, err := mountsBelow(at)
	if err != nil {
		return err
	}
	_, drop := sortMounts(mounts, at, p, known)
	for _, point := range slices.Backward(drop) { // what covers others goes first
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // went with the one it was on
			return fmt.Errorf("cannot unmount %s: %w", point, err)
		}
	}
	return nil
}

// mountsBelow returns the mounts at a directory and below it.
func mountsBelow(dir string) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	return mounts, nil
}

// IsBareAutomount reports whether p is mounted on first use, and nothing is mounted there yet.
func IsBareAutomount(p string) (bool, error) {
	mounts, err := mountinfo.GetMounts(facts.MountedAt(p))
	if err != nil {
		return false, fmt.Errorf("cannot read the mounts: %w", err)
	}
	return len(mounts) > 0 && mounts[len(mounts)-1].FSType == "autofs", nil
}

// runningUnits are where systemd has the unit files of the running root, with those that it makes from fstab.
var runningUnits = []string{
	"/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator", "/usr/lib/systemd/system",
}

// WithoutAwaited returns the state paths without those that a unit of the running root mounts and that are not mounted:
// a disk may be optional, or late after a full reboot. What is at such a path is the directory below, and no state.
func WithoutAwaited(persist []string) ([]string, error) {
	return withoutAwaited(persist, Known{UnitDirs: runningUnits})
}

func withoutAwaited(persist []string, running Known) (there []string, err error) {
	for _, p := range persist {
		mounts, err := mountinfo.GetMounts(facts.MountedAt(p))
		if err != nil {
			return nil, fmt.Errorf("cannot read the mounts: %w", err)
		}
		if len(mounts) > 0 || !running.HasUnit(p, ".mount") {
			there = append(there, p)
		}
	}
	return there, nil
}
