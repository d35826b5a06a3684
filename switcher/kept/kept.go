// Package kept answers where the state of a host lies, and whether it is still mounted from there. It promises to
// bring back a mount that is gone from the device that it was on, and never to mount over something else.
package kept

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
)

// Dir is a directory that is kept across a switch, and where it lies.
type Dir struct {
	// Path is where the directory is in every root.
	Path string `json:"path"`
	// Device is the file system, as MAJOR:MINOR, and Below the directory's path from the root of that.
	Device string `json:"device"`
	Below  string `json:"below"`
	// Source and Type are those of the mount, Options those of the file system, Flags those of the mount.
	Source  string `json:"source"`
	Type    string `json:"type"`
	Options string `json:"options,omitempty"`
	Flags   string `json:"flags,omitempty"`
}

// ReadOnly reports whether the directory was mounted read-only.
func (d Dir) ReadOnly() bool {
	isSet := func(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
	return isSet(d.Flags) || isSet(d.Options)
}

// Observe returns where the directories lie now that are there, on storage of their own: not in an image, and not
// behind an automount that nobody has used. Instead of the root itself, it notes that as host, if it is the host root.
func Observe(paths []string, host string) []Dir {
	table, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil
	}
	var dirs []Dir
	if root, err := facts.MountedRoot(); err == nil && root == switcher.HostRoot {
		if d, ok := observe("/", table); ok {
			d.Path = host
			dirs = append(dirs, d)
		}
	} else if mounted, err := mount.IsMountPoint(host); err == nil && mounted {
		paths = append(slices.Clone(paths), host)
	}
	for _, p := range paths {
		if d, ok := observe(p, table); ok {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

func observe(p string, table []*mountinfo.Info) (Dir, bool) {
	if isAutomount(p, table) {
		return Dir{}, false
	}
	place, err := facts.PlaceOf(p)
	if err != nil || place.OfImage() || place.Deleted {
		return Dir{}, false
	}
	d := Dir{Path: p, Device: place.Device, Below: place.Path, Source: place.Source}
	for _, m := range table {
		at := facts.PlaceOfMount(m)
		if place.Within(at) && m.Source == place.Source && isBelow(p, m.Mountpoint) {
			d.Type, d.Options, d.Flags = m.FSType, m.VFSOptions, m.Options
		}
	}
	return d, true
}

// isAutomount reports whether p is mounted on first use, and nothing is mounted there yet.
func isAutomount(p string, table []*mountinfo.Info) bool {
	kind := ""
	for _, m := range table {
		if m.Mountpoint == p {
			kind = m.FSType
		}
	}
	return kind == "autofs"
}

// isBelow reports whether a path is another one, or below it.
func isBelow(p, dir string) bool { return strings.HasPrefix(p+"/", strings.TrimSuffix(dir, "/")+"/") }

// Gone returns those of the directories before that are still to be kept, at these paths, and that are not seen now: a
// mount may be gone that nobody wanted gone. What is seen counts as it is, because somebody may have moved it.
func Gone(before, now []Dir, paths []string) []Dir {
	return slices.DeleteFunc(slices.Clone(before), func(d Dir) bool {
		return !slices.Contains(paths, d.Path) ||
			slices.ContainsFunc(now, func(n Dir) bool { return n.Path == d.Path })
	})
}

// Displaced returns the reasons why directories are not where they were; none when all are. A directory that the root
// mounts on first use does not count. host is where an image root has the host root, which is not looked at on the
// host root itself.
func Displaced(dirs []Dir, host string) []string {
	table, err := mountinfo.GetMounts(nil)
	if err != nil {
		return []string{fmt.Sprintf("cannot read the mounts: %v", err)}
	}
	root, err := facts.MountedRoot()
	if err != nil {
		return []string{err.Error()}
	}
	var reasons []string
	for _, d := range dirs {
		if d.Path == host && root == switcher.HostRoot || isAutomount(d.Path, table) {
			continue
		}
		if reason := d.differs(facts.PlaceOf(d.Path)); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// differs returns why a directory is not where it was; "" if it is, and in a root that does without it: one that is
// older than the line of the configuration has no such path.
func (d Dir) differs(now facts.Place, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err != nil:
		return fmt.Sprintf("%s cannot be read (%v); it was mounted from %s", d.Path, err, d.Source)
	case d.isAt(now):
		return ""
	case now.OfImage():
		return fmt.Sprintf("%s is the image's own; it was mounted from %s", d.Path, d.Source)
	}
	return fmt.Sprintf("%s is %s on %s; it was %s on %s", d.Path, now.Path, now.Source, d.Below, d.Source)
}

// isAt reports whether the directory lies at a place. The number of a file system without a device, such as btrfs or
// NFS, changes when it is mounted anew.
func (d Dir) isAt(now facts.Place) bool {
	if now.Deleted || now.Path != d.Below {
		return false
	}
	return now.Device == d.Device || strings.HasPrefix(d.Device, "0:") && now.Source == d.Source
}

// fromAbove returns directories in an order in which /var comes before /var/log.
func fromAbove(dirs []Dir) []Dir {
	return slices.SortedStableFunc(slices.Values(dirs), func(a, b Dir) int {
		return cmp.Compare(strings.Count(a.Path, "/"), strings.Count(b.Path, "/"))
	})
}

// Restore mounts directories that are missing again, from the device that they were on. What is mounted there from
// elsewhere stays, and what is not on a device of this machine is left to the root. host is where an image root has the
// host root, read-only.
func Restore(dirs []Dir, host string) error {
	root, err := facts.MountedRoot()
	if err != nil {
		return err
	}
	var failed []error
	for _, d := range fromAbove(dirs) {
		if d.Path == host && root == switcher.HostRoot || !d.isMissing() {
			continue
		}
		if err := d.mountAgain(d.Path == host); err != nil {
			failed = append(failed, fmt.Errorf("cannot mount %s from %s again: %w", d.Path, d.Source, err))
		}
	}
	return errors.Join(failed...)
}

// isMissing reports whether the directory was on a device of this machine, and now its path is an ordinary directory
// on another file system.
func (d Dir) isMissing() bool {
	if !strings.HasPrefix(d.Source, "/dev/") { // a server that does not answer is not asked
		return false
	}
	if st, err := os.Lstat(d.Path); err != nil || !st.IsDir() {
		return false
	}
	if mounted, err := mount.IsMountPoint(d.Path); err != nil || mounted {
		return false
	}
	place, err := facts.PlaceOf(d.Path)
	return err == nil && !d.isAt(place)
}

// scratch is where a file system is mounted for a moment.
const scratch = switcher.RunDir + "/kept"

// mountAgain mounts the file system of the directory for a moment, and a clone of the directory at its path.
func (d Dir) mountAgain(readOnly bool) error {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	flags, options := d.mountOptions()
	if err := unix.Mount(d.Source, scratch, d.Type, flags, options); err != nil {
		return err
	}
	defer mount.Detach(scratch)
	from, err := d.inFileSystem(scratch)
	if err != nil {
		return err
	}
	tree, err := mount.Clone(from, false)
	if err != nil {
		return err
	}
	defer tree.Close()
	if now, err := facts.PlaceOf(from); err != nil || !d.isAt(now) {
		return errors.Join(err, errors.New("the device has another file system now"))
	}
	if readOnly {
		if err := tree.SetReadOnly(true); err != nil {
			return err
		}
	}
	return tree.Attach(d.Path)
}

// inFileSystem returns where the directory is below the mount at a point, which may show a part of the file system
// only, such as a subvolume.
func (d Dir) inFileSystem(point string) (string, error) {
	at, err := facts.PlaceOf(point)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(at.Path, d.Below)
	if err != nil || strings.HasPrefix(rel, "..") {
		return "", fmt.Errorf("%s is not in what is mounted from it", d.Below)
	}
	return filepath.Join(point, rel), nil
}

// mountFlags are the options of a mount that the kernel takes as flags.
var mountFlags = map[string]uintptr{
	"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME,
	"nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "ro": unix.MS_RDONLY,
}

// mountOptions returns the flags and options to mount the file system with, as it was mounted. Whether the file system
// itself is read-only is one of its options.
func (d Dir) mountOptions() (flags uintptr, options string) {
	var rest []string
	for option := range strings.SplitSeq(d.Options, ",") {
		switch option {
		case "", "rw":
		case "ro":
			flags |= unix.MS_RDONLY
		default:
			rest = append(rest, option)
		}
	}
	for flag := range strings.SplitSeq(d.Flags, ",") {
		if flag != "ro" {
			flags |= mountFlags[flag]
		}
	}
	return flags, strings.Join(rest, ",")
}
