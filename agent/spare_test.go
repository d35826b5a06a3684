package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/facts"
)

// TestSpare: the room that is kept is given up in parts, for what finds no other.
func TestSpare(t *testing.T) {
	a := &Agent{Machine: facts.Machine{Root: t.TempDir()}, Log: zap.NewNop()}
	file := a.path(spareFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time, it is there
		a.reserve()
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Size != spareSize || st.Blocks*512 < spareSize {
		t.Fatalf("%d bytes in %d blocks (%v), want %d on the disk", st.Size, st.Blocks, err, spareSize)
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
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	if err := a.withSpare(func() error { return fs.ErrPermission }); !errors.Is(err, fs.ErrPermission) || size() != spareSize {
		t.Errorf("another error (%v) has cost the room that is kept", err)
	}
	for _, c := range []struct {
		enough int
		left   int64
	}{{2, spareSize - sparePart}, {4, spareSize - 4*sparePart}, {5, 0}} {
		writes, enough = 0, c.enough
		if err := a.withSpare(write); err != nil || writes != enough || size() != c.left {
			t.Errorf("after %d writes: %v, %d bytes left, want %d", writes, err, size(), c.left)
		}
	}
	writes, enough = 0, 2
	if err := a.withSpare(write); !errors.Is(err, unix.ENOSPC) || writes != 1 {
		t.Errorf("without any, after %d writes: %v", writes, err)
	}
}

// TestNoRoomIsNotTheImage: what has no room says nothing of the image.
func TestNoRoomIsNotTheImage(t *testing.T) {
	full := &fs.PathError{Op: "mkdir", Path: "scratch", Err: unix.ENOSPC}
	if err := incompatible(full); errors.Is(err, ErrIncompatible) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk is told as %v", err)
	}
	if err := incompatible(errors.New("it has no init")); !errors.Is(err, ErrIncompatible) {
		t.Errorf("an image without init is told as %v", err)
	}
	if err := incompatible(nil); err != nil {
		t.Error(err)
	}
}
