package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotRegular means that something is a directory, a FIFO, a socket or a device where a file was expected.
var ErrNotRegular = errors.New("it is not a regular file")

// ErrTooLarge means that a file is larger than its reader allows.
var ErrTooLarge = errors.New("larger than allowed")

// OpenRegular opens a regular file, or a link to one, for reading. Anything else is an [ErrNotRegular]: opening a FIFO
// waits until somebody writes to it, and opening a device may do anything. Only /dev/null is as good as an empty file:
// a link to it is how people switch a file off. Other errors are those of [os.Open].
func OpenRegular(name string) (*os.File, error) { return openRegular(name, os.Stat, os.OpenFile) }

// OpenRegularIn is [OpenRegular] for a name in a directory that somebody else may have made: a link that leads out of
// the directory is an error.
func OpenRegularIn(dir *os.Root, name string) (*os.File, error) {
	return openRegular(name, dir.Stat, dir.OpenFile)
}

func openRegular(name string, stat func(string) (fs.FileInfo, error),
	open func(string, int, fs.FileMode) (*os.File, error)) (*os.File, error) {
	st, err := stat(name)
	if err != nil {
		return nil, err
	}
	if !readable(st) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	// It may be exchanged in between: a FIFO does not block then, and is noticed.
	f, err := open(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if st, err = f.Stat(); err == nil && !readable(st) {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readable reports whether something is a regular file or /dev/null.
func readable(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return st.Mode().IsRegular() || ok && st.Mode()&fs.ModeCharDevice != 0 && sys.Rdev == unix.Mkdev(1, 3)
}

// ReadRegular returns the content of a regular file, see [OpenRegular]. A file larger than limit bytes is an
// [ErrTooLarge].
func ReadRegular(name string, limit int64) ([]byte, error) {
	f, err := OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is %w: %d bytes", name, ErrTooLarge, limit)
	}
	return text, err
}
