package volatile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
)

// Beneath calls a function that sees the running root without its throw-away copies: in a mount namespace of its own,
// which ends with the call. What the function mounts is seen nowhere else; what it returns as a detached tree can be
// attached anywhere. In a root without copies, it is a plain call.
func Beneath(do func() error) error {
	volatile, err := facts.IsVolatile()
	if err != nil {
		return err
	}
	if !volatile {
		return do()
	}
	return mount.Apart(func() error {
		if err := uncover(); err != nil {
			return fmt.Errorf("cannot look beneath the copy of the state: %w", err)
		}
		return do()
	})
}

// uncover unmounts the copies in this mount namespace.
func uncover() error {
	const most = 4096 // bounds the loop: each turn removes a copy, or what somebody mounted over one
	for range most {
		copies, err := facts.VolatileMounts()
		if err != nil || len(copies) == 0 {
			return err
		}
		outermost := slices.MinFunc(copies, func(a, b *mountinfo.Info) int { return len(a.Mountpoint) - len(b.Mountpoint) })
		if err := unix.Unmount(outermost.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot unmount the copy of %s: %w", outermost.Mountpoint, err)
		}
	}
	return errors.New("there are too many mounts")
}

// Exposed returns those of the paths that are seen in the running root and are not on a throw-away copy, although the
// root has some, and every disk that is mounted below them as it is. What is mounted at the path own stays real.
func Exposed(paths []string, own string) (exposed []string, err error) {
	volatile, err := facts.IsVolatile()
	if err != nil || !volatile {
		return nil, err
	}
	for _, p := range paths {
		place, err := facts.PlaceOf(p)
		if err != nil {
			continue // what cannot be looked at cannot be written to, either
		}
		if !place.Volatile() {
			exposed = append(exposed, p)
		}
	}
	disks, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !isDiskBelow(m, paths) || isBelow(m.Mountpoint, own), false
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	for _, m := range disks {
		if place, err := facts.PlaceOf(m.Mountpoint); err == nil && !place.Volatile() { // otherwise a copy covers it
			exposed = append(exposed, m.Mountpoint)
		}
	}
	slices.Sort(exposed)
	return slices.Compact(exposed), nil
}

// isDiskBelow reports whether a mount is that of a disk, below one of the paths.
func isDiskBelow(m *mountinfo.Info, paths []string) bool {
	return strings.HasPrefix(m.Source, "/dev/") && slices.ContainsFunc(paths, func(p string) bool {
		return m.Mountpoint != p && isBelow(m.Mountpoint, p)
	})
}
