package mount

import (
	"errors"

	"golang.org/x/sys/unix"
)

// MakeWritable undoes a remount of the state: a root that is gone back to must be able to write to it.
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
