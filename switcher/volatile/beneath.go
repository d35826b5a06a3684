package volatile

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/facts"
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
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open(ownNamespace)
	if err != nil {
		return fmt.Errorf("cannot look beneath the copy of the state: %w", err)
	}
	defer here.Close()
	done := make(chan error, 1)
	go func() { done <- onOwnThread(here, do) }()
	return <-done
}

// ownNamespace is the mount namespace of the thread that asks.
const ownNamespace = "/proc/thread-self/ns/mnt"

// onOwnThread calls a function on a thread that ends with this goroutine. It never takes the first thread of the
// process, whose mounts others see as those of the process.
func onOwnThread(from *os.File, do func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		return uncovered(from, do) // the thread stays locked, so that it ends
	}
	defer runtime.UnlockOSThread()
	done := make(chan error, 1)
	go func() { done <- onOwnThread(from, do) }()
	return <-done
}

// uncovered calls a function in a mount namespace that is another one without its copies.
func uncovered(from *os.File, do func() error) error {
	if err := enter(from); err != nil {
		return fmt.Errorf("cannot look beneath the copy of the state: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot look beneath the copy of the state: %w", err)
	}
	// First of all: nothing that is unmounted here may be unmounted elsewhere.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot look beneath the copy of the state: %w", err)
	}
	const most = 4096 // bounds the loop: each turn removes a copy, or what somebody mounted over one
	for range most {
		copies, err := facts.VolatileMounts()
		if err != nil {
			return err
		}
		if len(copies) == 0 {
			return do()
		}
		outermost := slices.MinFunc(copies, func(a, b *mountinfo.Info) int { return len(a.Mountpoint) - len(b.Mountpoint) })
		if err := unix.Unmount(outermost.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot look beneath the copy of %s: %w", outermost.Mountpoint, err)
		}
	}
	return errors.New("cannot look beneath the copy of the state: there are too many mounts")
}

// enter moves this thread to a mount namespace, unless it is there. A thread of the process may not be where the caller
// is: new ones begin where the process is.
func enter(namespace *os.File) error {
	var there, here unix.Stat_t
	if err := errors.Join(unix.Fstat(int(namespace.Fd()), &there), unix.Stat(ownNamespace, &here)); err != nil {
		return err
	}
	if there.Ino == here.Ino {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS)
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
