package assembly

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

// knownMounts is what a root mounts without us: by lines of its fstab, and by unit files.
type knownMounts struct {
	points     []string // mount points that somebody named
	automounts []string // those that are mounted on first use
	unitDirs   []string // where the root has unit files, as paths in this process
}

// known returns what the root mounts without us. unitDirs lists where its unit files are.
func (n Next) known(unitDirs ...string) knownMounts {
	return knownMounts{slices.Concat(n.Fstab, n.Persist), n.Automounts, unitDirs}
}

// knownIn returns what the root with this pristine image mounts without us. Its /etc may not be merged yet.
func (n Next) knownIn(image string) knownMounts {
	return n.known(slices.Concat(unitDirsIn(image), []string{filepath.Join(n.Etc, "systemd/system")})...)
}

// LeftBehind returns the mounts below the state that the root with this pristine image does not get, and that nothing
// in it mounts.
func (n Next) LeftBehind(image string) ([]string, error) {
	var left []string
	known := n.knownIn(image)
	for _, p := range n.Persist {
		mounts, err := mountsBelow(p)
		if err != nil {
			return nil, err
		}
		_, drop := sortMounts(mounts, p, p, known)
		for _, m := range mounts {
			grafted := strings.HasPrefix(m.Source, switcher.SourcePrefix)
			if slices.Contains(drop, m.Mountpoint) && !grafted && !known.mountsOnUse(m.Mountpoint) &&
				!known.names(m.Mountpoint) {
				left = append(left, m.Mountpoint)
			}
		}
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}

// unitDirsIn returns where the root at tree has unit files.
func unitDirsIn(tree string) []string {
	return []string{filepath.Join(tree, "etc/systemd/system"), filepath.Join(tree, switcher.UnitDir)}
}

// names reports whether somebody wants something mounted at this point of the root.
func (k knownMounts) names(point string) bool {
	return slices.Contains(k.points, point) || k.hasUnit(point, ".mount")
}

// mountsOnUse reports whether the root mounts this point on first use.
func (k knownMounts) mountsOnUse(point string) bool {
	return slices.Contains(k.automounts, point) || k.hasUnit(point, ".automount")
}

func (k knownMounts) hasUnit(point, suffix string) bool {
	name := unit.UnitNamePathEscape(point) + suffix
	return slices.ContainsFunc(k.unitDirs, func(dir string) bool { return rootfs.Exists(filepath.Join(dir, name)) })
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
func sortMounts(mounts []*mountinfo.Info, at, p string, known knownMounts) (carry, drop []string) {
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
			return fates[above] == droppedWithAllBelow && isBelow(point, above)
		})
	}
	hasCarriedBelow := func(point string) bool {
		return slices.ContainsFunc(points, func(below string) bool {
			return fates[below] == carried && isBelow(below, point) && !isGone(below)
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

// isBelow reports whether a path is another one, or below it.
func isBelow(p, dir string) bool { return strings.HasPrefix(p+"/", dir+"/") }

// fateOf decides about the mounts stacked at one point, the topmost of which is seen.
func fateOf(stack []*mountinfo.Info, point string, known knownMounts) fate {
	top := stack[len(stack)-1]
	switch {
	case known.mountsOnUse(point), top.FSType == "autofs":
		return droppedWithAllBelow
	case strings.HasPrefix(top.Source, switcher.SourcePrefix): // of the running image root; the next one has its own
		return droppedWithAllBelow
	case strings.HasPrefix(top.FSType, "fuse"): // its server ends with the old root; what is named is mounted anew
		return dropped
	case isDisk(top), known.names(point):
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

// dropUnwanted unmounts what the new root does not get of the mounts below a state path, which was cloned to at.
func dropUnwanted(at, p string, known knownMounts) error {
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

// isBareAutomount reports whether p is mounted on first use, and nothing is mounted there yet.
func isBareAutomount(p string) (bool, error) {
	mounts, err := mountinfo.GetMounts(facts.MountedAt(p))
	if err != nil {
		return false, fmt.Errorf("cannot read the mounts: %w", err)
	}
	return len(mounts) > 0 && mounts[len(mounts)-1].FSType == "autofs", nil
}

// leftToRoot reports whether the new root mounts the state path p without us, on first use. It is an error if nobody
// would: p is an automount with nothing mounted on it, so there is nothing to carry, and the root has no unit for it.
func (n Next) leftToRoot(p string, known knownMounts) (bool, error) {
	if known.mountsOnUse(p) {
		return true, nil
	}
	if bare, err := isBareAutomount(p); err != nil || !bare {
		return false, err
	}
	if slices.Contains(n.Fstab, p) || known.hasUnit(p, ".mount") {
		return true, nil
	}
	return false, fmt.Errorf("cannot carry %s over: it is mounted on first use, by a unit that the new root lacks; "+
		"add a line for it to /etc/fstab", p)
}
