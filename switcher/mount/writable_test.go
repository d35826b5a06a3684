package mount

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMakeWritable: neither a read-only mount nor a read-only file system stays so.
func TestMakeWritable(t *testing.T) {
	for name, flags := range map[string]uintptr{
		"mount": unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, "file system": unix.MS_REMOUNT | unix.MS_RDONLY,
		"neither": unix.MS_REMOUNT,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			if err := errors.Join(unix.Mount("", dir, "", flags, ""), MakeWritable(dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/x", nil, 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	if err := MakeWritable(t.TempDir() + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing path: %v", err)
	}
}
