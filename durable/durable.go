// Package durable reads and writes files that must survive a power cut. It promises that once [WriteFile],
// [Disk.AppendLine], [SyncDir] or [SyncFS] returns nil, the file, the names in the directory or the file system are on
// the disk as they were when it was called. The other methods of a [Disk] leave that to one of these.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteFile replaces or creates a file, with exactly this mode, whatever the umask is. A crash at any moment leaves
// the old content or the new, never a mixture; it may also leave a temporary file called ".NAME.*" in the same
// directory, which the caller may remove. After an error there is no temporary file, and the file has its old content,
// unless only the last step failed, the sync of the directory. Errors name the file and wrap those of the operating
// system.
func WriteFile(file string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name()) // fails after the rename, when there is nothing to remove
		}
	}()
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncFS makes everything durable that was written to the file system of dir. Errors wrap those of the operating
// system.
func SyncFS(dir string) error { return syncAt(dir, unix.Syncfs) }

// SyncDir makes the names in dir durable, that is, files created, renamed and removed there, but not their content.
// Errors wrap those of the operating system.
func SyncDir(dir string) error { return syncAt(dir, unix.Fsync) }

// syncAt opens a directory and calls sync with its file descriptor, again if a signal interrupts it.
func syncAt(dir string, sync func(fd int) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	defer d.Close()
	err = sync(int(d.Fd()))
	for errors.Is(err, unix.EINTR) { // possible on network file systems
		err = sync(int(d.Fd()))
	}
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	return nil
}
