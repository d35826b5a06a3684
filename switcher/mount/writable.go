package mount

import (
	"errors"

	"golang.org/x/sys/unix"
)

// MakeWritable makes the mount at path writable again, and its file system if need be: after a rollback, the root must
// be able to write to its state.
func MakeWritable(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		return err
	}
	rw := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(unix.AT_FDCWD, path, 0, &rw)
	if err := unix.Statfs(path, &st); err == nil && st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	return errors.Join(err, unix.Mount("", path, "", unix.MS_REMOUNT, ""))
}
