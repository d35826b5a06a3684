package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
)

// Place is where a directory lies, whatever it is mounted at.
type Place struct {
	// Device is the file system, as MAJOR:MINOR. Path is the directory's path from the root of that file system.
	Device, Path string
	// Source is the source of the mount that the directory is on.
	Source string
	// Deleted is whether the directory, or the one that is mounted there, has been removed.
	Deleted bool
}

// Within reports whether a place is dir or below it.
func (p Place) Within(dir Place) bool {
	below := strings.TrimSuffix(dir.Path, "/") + "/"
	return p.Device == dir.Device && (p.Path == dir.Path || strings.HasPrefix(p.Path, below))
}

// OfImage reports whether a place is in the image of a root, with what is laid over it.
func (p Place) OfImage() bool { return strings.HasPrefix(p.Source, switcher.SourcePrefix) }

// Volatile reports whether a place is on a throw-away copy of the state.
func (p Place) Volatile() bool { return strings.HasPrefix(p.Source, switcher.VolatilePrefix) }

// deleted is what the kernel appends to the root of a mount that has been removed.
const deleted = "//deleted"

// placeOn returns the place of the directory that lies at the path below on a mount.
func placeOn(m *mountinfo.Info, below string) Place {
	p := Place{Device: fmt.Sprintf("%d:%d", m.Major, m.Minor), Source: m.Source}
	root, gone := strings.CutSuffix(m.Root, deleted)
	p.Path, p.Deleted = filepath.Join(root, below), gone
	return p
}

// PlaceOfMount returns what is mounted by a mount.
func PlaceOfMount(m *mountinfo.Info) Place { return placeOn(m, "") }

// PlaceOf returns where a directory lies. It follows symbolic links. Errors wrap those of the operating system.
func PlaceOf(dir string) (Place, error) {
	m, name, err := lookUp(dir)
	if err != nil {
		return Place{}, err
	}
	name, gone := strings.CutSuffix(name, " (deleted)")
	p := placeOn(m, strings.TrimPrefix(name, strings.TrimSuffix(m.Mountpoint, "/")))
	p.Deleted = p.Deleted || gone
	return p, nil
}

// MountOf returns the mount that a directory is on, with the directory as its root. It follows symbolic links.
func MountOf(dir string) (*mountinfo.Info, error) {
	m, _, err := lookUp(dir)
	if err != nil {
		return nil, err
	}
	place, err := PlaceOf(dir)
	if err == nil {
		m.Root = place.Path
	}
	return m, err
}

// lookUp returns the mount that a directory is on, and the directory's path in this namespace, without links.
func lookUp(dir string) (*mountinfo.Info, string, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	fd := int(f.Fd())
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st); err != nil {
		return nil, "", &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, "", err
	}
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return uint64(i.ID) != st.Mnt_id, false
	})
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return nil, "", fmt.Errorf("cannot find the mount of %s", dir)
	}
	return mounts[0], name, nil
}

// MountedRoots returns the staged roots that are in use, each with a mount point that shows it: something of the root
// is mounted there, or something else is mounted inside the root's directory. dir is the directory of all roots. It
// looks into every mount namespace of this machine, because a service may have one of its own.
func MountedRoots(dir string) (map[string]string, error) {
	used := map[string]string{}
	of, err := PlaceOf(dir)
	if os.IsNotExist(err) {
		return used, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find out which roots are mounted: %w", err)
	}
	tables, err := mountTables()
	if err != nil {
		return nil, fmt.Errorf("cannot find out which roots are mounted: %w", err)
	}
	for _, table := range tables {
		for _, m := range table {
			if id, ok := strings.CutPrefix(m.Source, switcher.SourcePrefix); ok {
				used[id] = m.Mountpoint
			}
			for _, path := range []string{belowDir(PlaceOfMount(m), of), strings.TrimPrefix(m.Mountpoint, dir+"/")} {
				if id, _, _ := strings.Cut(path, "/"); id != "" {
					used[id] = m.Mountpoint
				}
			}
		}
	}
	return used, nil
}

// belowDir returns the path of a place below a directory, "" if it is not below it.
func belowDir(p, dir Place) string {
	if !p.Within(dir) {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(p.Path, strings.TrimSuffix(dir.Path, "/")), "/")
}

// mountTables returns the mounts of every mount namespace that a process is in, those of this process first.
func mountTables() ([][]*mountinfo.Info, error) {
	own, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	tables, seen := [][]*mountinfo.Info{own}, map[string]bool{}
	if namespace, err := os.Readlink("/proc/thread-self/ns/mnt"); err == nil {
		seen[namespace] = true
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, process := range processes {
		namespace, err := os.Readlink(process + "/ns/mnt")
		if err != nil || seen[namespace] {
			continue // err: a process that has ended, or a thread of the kernel
		}
		text, err := os.Open(process + "/mountinfo")
		if err != nil {
			continue
		}
		mounts, err := mountinfo.GetMountsFromReader(text, nil)
		text.Close()
		if err == nil {
			seen[namespace] = true
			tables = append(tables, mounts)
		}
	}
	return tables, nil
}
