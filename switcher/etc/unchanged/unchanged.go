// Package unchanged answers whether a directory is as it was a while ago, without reading its files. It goes by the
// change times (ctime) that the kernel sets, so who sets the clock can mislead it. A user can mislead it about a last
// change of a file of his own, by a write that takes its data from a file system of his.
package unchanged

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Settled is how old the last change of a directory must be that somebody else writes in: two changes within a tick of
// the kernel's clock have the same time.
const Settled = time.Second

// The bounds of what is looked at.
const (
	maxFiles = 100_000
	maxDepth = 64
)

// errUnsure means that times say nothing here, or not yet.
var errUnsure = errors.New("cannot tell by times")

// Print returns a fingerprint of what a directory holds: it differs when anything in it was changed, added or removed.
// It is false when times cannot tell: something was changed after limit, something is mounted there, the file system
// does not keep the times of changes by mmap(2), or there are more than 100 000 files. A write by mmap(2) sets the time
// only if the page was on the disk: synchronize the file system before the first fingerprint.
func Print(dir string, limit time.Time) (string, bool, error) {
	w := walk{sum: sha256.New(), limit: limit}
	switch err := w.top(dir); {
	case errors.Is(err, errUnsure):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("cannot look for changes in %s: %w", dir, err)
	}
	return hex.EncodeToString(w.sum.Sum(nil)), true, nil
}

type walk struct {
	sum   hash.Hash
	limit time.Time
	dev   uint64
	files int
}

// keepsTimes lists file systems that note a change by a mapping when the page is written to for the first time.
var keepsTimes = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC}

func (w *walk) top(dir string) error {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var in unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &in); err != nil {
		return err
	}
	if !slices.Contains(keepsTimes, int64(in.Type)) {
		return errUnsure
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	w.dev = st.Dev
	if err := w.note(".", &st); err != nil {
		return err
	}
	return w.below(f, 0)
}

// note adds a file to the fingerprint.
func (w *walk) note(name string, st *unix.Stat_t) error {
	w.files++
	changed := time.Unix(st.Ctim.Unix())
	if st.Dev != w.dev || w.files > maxFiles || changed.After(w.limit) {
		return errUnsure
	}
	_, err := fmt.Fprintf(w.sum, "%q %d %o %d %d %d %d %d %d\n", name, st.Ino, st.Mode, st.Uid, st.Gid, st.Rdev, st.Size,
		st.Mtim.Nano(), changed.UnixNano())
	return err
}

// below adds what is in a directory. Links are not followed, and what is exchanged meanwhile is unsure.
func (w *walk) below(dir *os.File, depth int) error {
	names, err := dir.Readdirnames(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if depth > maxDepth {
		return errUnsure
	}
	slices.Sort(names)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return unsure(err)
		}
		if err := w.note(name, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if err := w.enter(dir, name, &st, depth); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(w.sum, "up")
	return err
}

func (w *walk) enter(dir *os.File, name string, st *unix.Stat_t, depth int) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return unsure(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return err
	}
	if now.Ino != st.Ino || now.Dev != st.Dev {
		return errUnsure
	}
	return w.below(f, depth+1)
}

// unsure returns errUnsure for what vanished or was exchanged meanwhile.
func unsure(err error) error {
	for _, meanwhile := range []error{fs.ErrNotExist, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, meanwhile) {
			return errUnsure
		}
	}
	return err
}
