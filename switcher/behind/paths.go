package behind

import (
	"cmp"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Path is a file or directory of the host root outside of kept state, which the image does not have.
type Path struct {
	Path string
	// Bytes is how much room it takes on the disk, without what is mounted in it.
	Bytes int64
	// AtLeast is whether there was no time to measure all of it.
	AtLeast bool
	// File is whether it is a file at the top, which no state path can keep.
	File bool
	// Snap is whether it is a snap, which snapd mounts.
	Snap bool
}

// forAdministrators are the directories that packages leave to the administrator: what the image lacks in them is named
// one by one. Of all others at the top, only those count that the image does not have at all.
var forAdministrators = []string{"/opt", "/usr/local", "/srv", "/home", "/root", "/mnt", "/media", "/snap"}

// ofHost are the directories at the top that belong to the host root alone, and links that packages make.
var ofHost = []string{
	"/boot", "/efi", "/lost+found", "/etc", "/var", "/vmlinuz", "/vmlinuz.old", "/initrd.img", "/initrd.img.old",
	"/usr/local/man",
}

// paths returns what is on the host root outside of kept state and not in the image. Directories are measured as long
// as patience lasts.
func (r Root) paths(patience time.Duration) []Path {
	m := measurer{until: time.Now().Add(patience)}
	found := []Path{}
	var tops []string
	for _, name := range r.Host.Names("/") {
		tops = append(tops, path.Join("/", name))
	}
	for _, top := range append(tops, "/usr/local") {
		switch {
		case isWithinAny(top, slices.Concat(r.Kept, r.Mounts, ofKernel, ofHost)):
		case slices.Contains(forAdministrators, top):
			found = append(found, r.lacking(top, &m)...)
		case isWithinAny(top, ofPackages):
		case !r.has(top):
			found = append(found, m.measured(string(r.Host), top)...)
		}
	}
	slices.SortFunc(found, func(a, b Path) int { return cmp.Compare(a.Path, b.Path) })
	return found
}

// lacking returns what is in a directory for administrators and not in the image: the topmost paths.
func (r Root) lacking(dir string, m *measurer) []Path {
	var found []Path
	for _, name := range r.Host.Names(dir) {
		p := path.Join(dir, name)
		switch st, err := os.Lstat(filepath.Join(string(r.Host), p)); {
		case err != nil, isWithinAny(p, slices.Concat(r.Kept, r.Mounts, ofHost)):
		case dir == "/snap":
			if st.IsDir() && name != "bin" {
				found = append(found, Path{Path: p, Snap: true})
			}
		case dir == "/usr/local" && st.IsDir(), r.Image != "" && st.IsDir() && r.Image.HasDir(p):
			found = append(found, r.lacking(p, m)...)
		case r.Image == "" || !r.Image.Exists(p):
			found = append(found, m.measured(string(r.Host), p)...)
		}
	}
	return found
}

// measurer measures directories until it has no time left.
type measurer struct{ until time.Time }

// measured returns a path with its size; nothing for an empty directory, and for what is mounted there.
func (m *measurer) measured(host, p string) []Path {
	full := filepath.Join(host, p)
	bytes, files, whole := m.measure(full)
	if files == 0 && whole {
		return nil
	}
	st, err := os.Lstat(full)
	return []Path{{Path: p, Bytes: bytes, AtLeast: !whole, File: path.Dir(p) == "/" && err == nil && !st.IsDir()}}
}

// measure returns the bytes on disk of a path and everything in it, the number of files, and whether that is all. It
// enters no other file system, and mounts none.
func (m *measurer) measure(p string) (bytes int64, files int, whole bool) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	if err != nil || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return 0, 0, true
	}
	const block = 512 // bytes, by statx(2)
	bytes = int64(st.Blocks) * block
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return bytes, 1, true
	}
	dir, err := os.OpenFile(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return bytes, 0, false
	}
	defer dir.Close()
	whole = true
	const some = 256 // names at once, so that a huge directory does not exhaust the patience
	for {
		entries, err := dir.ReadDir(some)
		for _, e := range entries {
			if !time.Now().Before(m.until) {
				return bytes, files, false
			}
			b, f, w := m.measure(filepath.Join(p, e.Name()))
			bytes, files, whole = bytes+b, files+f, whole && w
		}
		if err != nil {
			return bytes, files, whole && err == io.EOF
		}
	}
}
