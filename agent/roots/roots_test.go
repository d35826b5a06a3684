package roots

import (
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
)

// TestNoRoomIsNotTheImage: a full disk is not reported as an incompatible image.
func TestNoRoomIsNotTheImage(t *testing.T) {
	full := &fs.PathError{Op: "mkdir", Path: "scratch", Err: unix.ENOSPC}
	if err := incompatible(full); errors.Is(err, ErrIncompatible) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk is reported as %v", err)
	}
	if err := incompatible(errors.New("it has no init")); !errors.Is(err, ErrIncompatible) {
		t.Errorf("an image without init is reported as %v", err)
	}
	if err := incompatible(nil); err != nil {
		t.Error(err)
	}
}

// TestVersionOf: the record knows the version of an accepted root even when the root is gone.
func TestVersionOf(t *testing.T) {
	rs := newRoots(t)
	rec := &record.Record{Accepted: map[string]release.Mark{"sha256-1": {Version: "1.0"}}}
	for root, want := range map[string]string{"sha256-1": "1.0", "sha256-2": "", switcher.HostRoot: ""} {
		if got := rs.VersionOf(root, rec); got != want {
			t.Errorf("%s has the version %q, want %q", root, got, want)
		}
	}
}
