package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReserve: on a full disk, the reserved room is given up in parts.
func TestReserve(t *testing.T) {
	s := testStore(t)
	file := s.Path(reserveFile)
	for range 2 { // the second time, the file exists
		s.Reserve()
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Size != reserveSize || st.Blocks*512 < reserveSize {
		t.Fatalf("%d bytes in %d blocks (%v), want %d on the disk", st.Size, st.Blocks, err, reserveSize)
	}
	full := &fs.PathError{Op: "write", Path: "state.json", Err: unix.ENOSPC}
	writes, enough := 0, 0
	write := func() error {
		if writes++; writes < enough {
			return full
		}
		return nil
	}
	size := func() int64 {
		t.Helper()
		st, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) { // given up as a whole, with its inode
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	if err := s.withReserve(func() error { return fs.ErrPermission }); !errors.Is(err, fs.ErrPermission) ||
		size() != reserveSize {
		t.Errorf("another error (%v) used up reserved room", err)
	}
	for _, c := range []struct {
		enough int
		left   int64
	}{{2, reserveSize - reservePart}, {4, reserveSize - 4*reservePart}, {5, 0}} {
		writes, enough = 0, c.enough
		if err := s.withReserve(write); err != nil || writes != enough || size() != c.left {
			t.Errorf("after %d writes: %v, %d bytes left, want %d", writes, err, size(), c.left)
		}
	}
	writes, enough = 0, 2
	if err := s.withReserve(write); !errors.Is(err, unix.ENOSPC) || writes != 1 {
		t.Errorf("with no room left, after %d writes: %v", writes, err)
	}
}

// TestReserveFreesAnInode: the record can be written where no inode is left.
func TestReserveFreesAnInode(t *testing.T) {
	s := testStore(t)
	dir := filepath.Dir(s.Path(reserveFile))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,nr_inodes=20"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s.Reserve()
	if err := s.Write(&Record{}); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("taken-", i)), nil, 0o600); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
	}
	if err := s.Write(&Record{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("there still is an inode: %v", err)
	}
	for range 2 {
		if err := s.WriteOutcome(&Record{}); err != nil {
			t.Fatal(err)
		}
	}
}
