package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MakeWritable makes the mount at path writable again, and its file system if need be: after a rollback, the root must
// be able to write to its state. An automount that nothing is mounted on is left alone: whoever triggers it may hang.
func MakeWritable(path string) error {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC, 0) // triggers no automount
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("cannot look at the file system of %s: %w", path, err)
	}
	if st.Type == unix.AUTOFS_SUPER_MAGIC || st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	rw := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &rw)
	if err := unix.Fstatfs(fd, &st); err == nil && st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	return errors.Join(err, unix.Mount("", path, "", unix.MS_REMOUNT, ""))
}
