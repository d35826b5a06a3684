package roots

import (
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"
)

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
