package store

import (
	"fmt"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// What staging leaves free on the file system, for the services of the host: this part of it, and at most so many
// bytes and inodes.
const (
	reservedPart   = 50
	reservedBytes  = 256 << 20
	reservedInodes = 2048
)

// How much is written between two looks at what is left.
const (
	checkedBytes = 1 << 20
	checkedFiles = 64
)

// room is what a file system has, in bytes and inodes. One that makes inodes as it needs them says that it has none.
type room struct{ bytes, free, inodes, freeInodes uint64 }

// lacks returns why need bytes must not be written there, "" if they may.
func (r room) lacks(need uint64) string {
	size := func(bytes uint64) string { return units.HumanSize(float64(bytes)) }
	if keep := min(r.bytes/reservedPart, reservedBytes); r.free < need+keep {
		what := ""
		if need > 0 {
			what = fmt.Sprintf("at least %s are needed, ", size(need))
		}
		return fmt.Sprintf("%s are free, %sand %s are left to the services", size(r.free), what, size(keep))
	}
	if keep := min(r.inodes/reservedPart, reservedInodes); r.inodes > 0 && r.freeInodes < keep {
		return fmt.Sprintf("%d inodes are free, and %d are left to the services", r.freeInodes, keep)
	}
	return ""
}

// roomIn returns what is on the file system of a directory.
func roomIn(dir string) (room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return room{}, fmt.Errorf("cannot read how much space is left in %s: %w", dir, err)
	}
	block := uint64(st.Bsize)
	return room{st.Blocks * block, st.Bavail * block, st.Files, st.Ffree}, nil
}

// Free returns how many bytes can be written beside a root until the file system is full.
func Free(r Root) (int64, error) {
	now, err := roomIn(r.Dir)
	return int64(now.free), err
}

// CheckRoom returns an ErrNoSpace unless need bytes can be written to the store, with enough left for the services of
// the host.
func (s *Store) CheckRoom(need int64) error {
	now, err := roomIn(s.dir)
	if err != nil {
		return err
	}
	if why := now.lacks(uint64(need)); why != "" {
		return fmt.Errorf("%w on the file system of %s: %s", ErrNoSpace, s.dir, why)
	}
	return nil
}

// wrote counts what was written, and returns an ErrNoSpace when too little is left: a full disk would stop the
// services.
func (g *Staging) wrote(bytes int64, files int) error {
	g.unchecked, g.uncheckedFiles = g.unchecked+bytes, g.uncheckedFiles+files
	if g.unchecked < checkedBytes && g.uncheckedFiles < checkedFiles {
		return nil
	}
	g.unchecked, g.uncheckedFiles = 0, 0
	return g.store.CheckRoom(0)
}
