package unchanged

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnsure: where times cannot tell, there is no fingerprint.
func TestUnsure(t *testing.T) {
	later := time.Now().Add(time.Minute)
	dir, err := os.MkdirTemp("/var/tmp", "updatectl-*") // /tmp may be in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := filepath.Join(dir, "a/b")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	print := func(dir string, limit time.Time, want bool) {
		t.Helper()
		if sum, sure, err := Print(dir, limit); sure != want || sure == (sum == "") || err != nil {
			t.Errorf("%s: sure is %v with %q, %v", dir, sure, sum, err)
		}
	}
	print(dir, later, true)
	print(dir, time.Now().Add(-time.Minute), false) // changed since
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	print(dir, later, false) // a mount
	print(at, later, false)  // of a file system without times for changes by mmap(2)
	if _, _, err := Print(dir+"/none", later); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is missing: %v", err)
	}
}
