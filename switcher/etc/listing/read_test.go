package listing

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// readWithin lists a directory as one of others, within some bounds.
func readWithin(t *testing.T, dir string, in foreign) Directory {
	t.Helper()
	top, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	d := Directory{Tree: Tree{}}
	if err := d.listBelow(top, ".", &in); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestReadNamesTheRest: whatever uses up the last path, what comes after it is named, once. It used not to be named if
// no directory had more files than what was left.
func TestReadNamesTheRest(t *testing.T) {
	dir := testtree.Make(t, "a/1", "b/1", "c/1")
	for paths := range int64(6) {
		d := readWithin(t, dir, foreign{top: "app", paths: paths, data: maxForeign, attrs: maxForeignAttr})
		if len(d.Tree) != int(paths) || !slices.Equal(d.LeftOut, []string{"app"}) || len(d.Notes) != 1 {
			t.Errorf("%d paths: listed %d, left out %q, notes %q", paths, len(d.Tree), d.LeftOut, d.Notes)
		}
	}
	d := readWithin(t, dir, foreign{top: "app", paths: 6, data: maxForeign, attrs: maxForeignAttr})
	if len(d.Tree) != 6 || d.LeftOut != nil {
		t.Errorf("6 paths: listed %d, left out %q", len(d.Tree), d.LeftOut)
	}
}

// TestReadBoundsAttributes: extended attributes count, too: some file systems take gigabytes of them.
func TestReadBoundsAttributes(t *testing.T) {
	dir := testtree.Make(t, "a", "b", "c/d")
	for name, size := range map[string]int{"a": 20, "b": 100, "c": 80} {
		if err := unix.Setxattr(filepath.Join(dir, name), "trusted.x", make([]byte, size), 0); err != nil {
			t.Fatal(err)
		}
	}
	d := readWithin(t, dir, foreign{top: "app", paths: 10, data: maxForeign, attrs: 100})
	if !d.Tree.Has("a") || !slices.Equal(d.LeftOut, []string{"b", "c"}) {
		t.Errorf("listed %v, left out %q", d.Tree, d.LeftOut)
	}
}

// TestReadBoundsNamesOfAttributes: a user may give a file more attributes than anybody can list. That kept a host from
// its merge.
func TestReadBoundsNamesOfAttributes(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	testtree.File(t, dir, "his/file", "")
	testtree.File(t, dir, "roots", "")
	for i := range 300 {
		name := fmt.Sprintf("trusted.%0240d", i)
		if err := unix.Setxattr(filepath.Join(dir, "his/file"), name, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Read(dir)
	if err != nil || !d.Tree.Has("roots") || !slices.Equal(d.LeftOut, []string{"his/file"}) {
		t.Errorf("left out %q, %v", d.LeftOut, err)
	}
}

// TestReadBoundsFilesOfGroups: a file that others can write in is bounded, whoever owns it and its directory.
func TestReadBoundsFilesOfGroups(t *testing.T) {
	dir := testtree.Make(t, "group", "everybody", "roots", "holes")
	for name, mode := range map[string]os.FileMode{"group": 0o664, "everybody": 0o646, "roots": 0o644, "holes": 0o664} {
		full := filepath.Join(dir, name)
		err := errors.Join(os.WriteFile(full, bytes.Repeat([]byte("x"), maxForeignFile+1), 0o644), os.Chmod(full, mode))
		if name == "group" || name == "holes" {
			err = errors.Join(err, os.Chown(full, 0, testtree.Attacker))
		}
		if name == "holes" {
			err = errors.Join(err, os.Truncate(full, 0), os.Truncate(full, maxForeignSize+1))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Read(dir)
	if err != nil || !d.Tree.Has("roots") || !slices.Equal(d.LeftOut, []string{"everybody", "group", "holes"}) {
		t.Errorf("left out %q, %v", d.LeftOut, err)
	}
}
