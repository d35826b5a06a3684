package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk is the part of a file system that holds small, precious files. Names are absolute. Errors wrap those of the
// operating system, such as fs.ErrNotExist and unix.ENOSPC.
type Disk interface {
	// ReadFile returns the content of a regular file. A file larger than limit bytes is an error.
	ReadFile(name string, limit int64) ([]byte, error)
	// Open opens a regular file for reading.
	Open(name string) (io.ReadCloser, error)
	// WriteFile replaces a file atomically. When it returns nil, the content survives a power cut.
	WriteFile(name string, content []byte, mode fs.FileMode) error
	// AppendLine adds a line to a file, which it creates if necessary. When it returns nil, the line survives a power cut.
	// If a crash cut the last line short, it begins a new one.
	AppendLine(name string, line []byte) error
	// CreateNew creates an empty file and its directories. It reports whether it did: false means that the file exists.
	CreateNew(name string) (bool, error)
	// Remove removes a file. A missing file is no error.
	Remove(name string) error
	// RemoveAll removes a tree as [RemoveAll] does.
	RemoveAll(name string) error
	// Rename gives a file or a tree another name.
	Rename(from, to string) error
	// Exchange replaces the tree at to with the one at from. At every moment there is a tree at to, if there was one
	// before. It removes the old tree, which is at from then; what cannot be removed of it stays, and is no error.
	Exchange(from, to string) error
	// MkdirAll makes a directory and its parents.
	MkdirAll(name string, mode fs.FileMode) error
	// Exists reports whether something has that name. A symbolic link counts, even a dangling one.
	Exists(name string) bool
	// Glob returns the names that match a pattern, see [filepath.Glob].
	Glob(pattern string) ([]string, error)
	// Reserve makes a file of size bytes, with its blocks allocated on the disk.
	Reserve(name string, size int64) error
	// Shrink cuts at most size bytes off the end of a file, and removes it when nothing is left, which frees its inode. It
	// reports whether there was a file.
	Shrink(name string, size int64) (bool, error)
	// TryLock takes an exclusive lock, which ends with unlock or with the process, and writes note into the file. If
	// another process holds the lock, unlock is nil and holder is the note of that process.
	TryLock(name, note string) (unlock func(), holder string, err error)
	// EndHolder sends SIGTERM to the process that holds a lock, if there is one.
	EndHolder(name string) error
}

// OS is the disk of this machine.
type OS struct{}

// ReadFile implements [Disk].
func (OS) ReadFile(name string, limit int64) ([]byte, error) { return ReadRegular(name, limit) }

// Open implements [Disk].
func (OS) Open(name string) (io.ReadCloser, error) { return OpenRegular(name) }

// WriteFile implements [Disk].
func (OS) WriteFile(name string, content []byte, mode fs.FileMode) error {
	return WriteFile(name, content, mode)
}

// AppendLine implements [Disk].
func (OS) AppendLine(name string, line []byte) error {
	_, missing := os.Lstat(name)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	text := append(line[:len(line):len(line)], '\n')
	last := []byte{'\n'}
	if end, err := f.Seek(-1, io.SeekEnd); err == nil { // fails on an empty file
		_, _ = f.ReadAt(last, end) // if this fails, assume that the last line is complete
	}
	if last[0] != '\n' {
		text = append([]byte{'\n'}, text...)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil && missing != nil {
		err = SyncDir(filepath.Dir(name)) // the name of the file, too
	}
	return err
}

// CreateNew implements [Disk].
func (OS) CreateNew(name string) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return false, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// Remove implements [Disk].
func (OS) Remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveAll implements [Disk].
func (OS) RemoveAll(name string) error { return RemoveAll(name) }

// Rename implements [Disk].
func (OS) Rename(from, to string) error { return rename(from, to) }

// Exchange implements [Disk].
func (OS) Exchange(from, to string) error {
	exchange := func() error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	}
	err := exchange()
	for errors.Is(err, unix.EINTR) { // possible on network file systems
		err = exchange()
	}
	if errors.Is(err, fs.ErrPermission) && SetFlags(from, Protected, 0) == nil && SetFlags(to, Protected, 0) == nil {
		err = exchange()
	}
	switch {
	case err == nil:
		_ = RemoveAll(from) // the new tree is in its place
		return nil
	case errors.Is(err, unix.ENOENT):
		return rename(from, to)
	}
	return &fs.PathError{Op: "rename", Path: to, Err: err}
}

// MkdirAll implements [Disk].
func (OS) MkdirAll(name string, mode fs.FileMode) error { return os.MkdirAll(name, mode) }

// Exists implements [Disk].
func (OS) Exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// Glob implements [Disk].
func (OS) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

// Reserve implements [Disk].
func (OS) Reserve(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) { // not every file system can allocate blocks
		_, err = f.WriteAt(make([]byte, size), 0)
	}
	return err
}

// Shrink implements [Disk].
func (OS) Shrink(name string, size int64) (bool, error) {
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Size() <= size {
		return true, os.Remove(name)
	}
	return true, os.Truncate(name, st.Size()-size)
}

// TryLock implements [Disk] by flock(2): the kernel drops the lock with the process, so a killed one leaves none.
func (OS) TryLock(name, note string) (unlock func(), holder string, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, "", err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, "", err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		const longest = 4 << 10
		text, _ := io.ReadAll(io.LimitReader(f, longest)) // no error: the note is for people
		f.Close()
		return nil, strings.TrimSpace(string(text)), nil
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(note+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return func() { f.Close() }, "", nil
}
