package fetchback

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// place is an open directory that is written in. Its owner may rename what is in it at any moment, so each name in it
// is used on its own, and no link is followed.
type place struct {
	dir  *os.File
	root *os.Root
}

// placeOf returns an open directory as a place, which closes it.
func placeOf(dir *os.File) (place, error) {
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		return place{}, errors.Join(err, dir.Close())
	}
	return place{dir, root}, nil
}

func (p place) close() {
	if p.dir != nil {
		p.root.Close()
		p.dir.Close()
	}
}

// below returns a directory below a place. The error is an ErrDifferent if a link is on the way.
func (p place) below(dir string) (place, error) {
	fd, err := unix.Openat2(int(p.dir.Fd()), dir, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	name := path.Join(p.dir.Name(), dir)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return place{}, fmt.Errorf("%s: %w", name, ErrDifferent)
	}
	if err != nil {
		return place{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return placeOf(os.NewFile(uintptr(fd), name))
}

// chownLink changes the owners of a link, and of nothing that somebody puts in its place.
func (p place) chownLink(name string, uid, gid uint32) error {
	fd, err := unix.Openat(int(p.dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return errors.Join(err, &os.PathError{Op: "chown", Path: name, Err: errReplaced})
	}
	if err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	return nil
}
