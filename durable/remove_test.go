package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// protected makes a tree with an immutable file, an append-only one and an immutable directory.
func protected(t *testing.T) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	t.Cleanup(func() { _ = RemoveAll(tree) })
	if err := errors.Join(
		os.MkdirAll(filepath.Join(tree, "dir"), 0o755), os.Symlink("/etc/passwd", filepath.Join(tree, "link")),
		os.WriteFile(filepath.Join(tree, "dir/file"), nil, 0o600), os.WriteFile(filepath.Join(tree, "log"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for name, flag := range map[string]int{"dir/file": unix.STATX_ATTR_IMMUTABLE, "log": unix.STATX_ATTR_APPEND,
		"dir": unix.STATX_ATTR_IMMUTABLE, ".": unix.STATX_ATTR_IMMUTABLE} {
		if err := SetFlags(filepath.Join(tree, name), Protected, flag); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// TestRemoveProtected: flags of chattr(1) do not keep a tree from being renamed, exchanged or removed.
func TestRemoveProtected(t *testing.T) {
	tree := protected(t)
	if err := os.RemoveAll(tree); !errors.Is(err, unix.EPERM) {
		t.Fatalf("the tree is not protected: %v", err)
	}
	moved := tree + "-moved"
	if err := (OS{}).Rename(tree, moved); err != nil {
		t.Errorf("Rename: %v", err)
	}
	if err := (OS{}).RemoveAll(moved); err != nil || (OS{}).Exists(moved) {
		t.Errorf("RemoveAll: %v, still there: %v", err, (OS{}).Exists(moved))
	}
	from, to := protected(t), protected(t)
	if err := (OS{}).Exchange(from, to); err != nil || (OS{}).Exists(from) || !(OS{}).Exists(to) {
		t.Errorf("Exchange: %v", err)
	}
}

// TestRemoveAllStopsAtAMount: what is mounted in a tree is not the tree's, and stays.
func TestRemoveAllStopsAtAMount(t *testing.T) {
	tree, data := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	file := filepath.Join(data, "precious")
	if err := errors.Join(os.MkdirAll(filepath.Join(tree, "mnt"), 0o755), os.WriteFile(file, nil, 0o600),
		unix.Mount(data, filepath.Join(tree, "mnt"), "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	err := RemoveAll(tree)
	if uerr := unix.Unmount(filepath.Join(tree, "mnt"), 0); uerr != nil {
		t.Error(uerr)
	}
	if !errors.Is(err, unix.EBUSY) || !(OS{}).Exists(file) {
		t.Errorf("RemoveAll: %v; the mounted file is there: %v", err, (OS{}).Exists(file))
	}
	if err := RemoveAll(tree); err != nil || !(OS{}).Exists(file) {
		t.Errorf("RemoveAll of what was unmounted: %v", err)
	}
}
