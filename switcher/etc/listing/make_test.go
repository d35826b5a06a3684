package listing

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestMakeIsBounded: a file that its owner makes larger after it was listed is not copied.
func TestMakeIsBounded(t *testing.T) {
	for name, enlarge := range map[string]func(his string) error{
		"data": func(his string) error {
			return os.WriteFile(his, bytes.Repeat([]byte("x"), maxForeignFile+1), 0o644)
		},
		"a hole": func(his string) error { return os.Truncate(his, maxForeignSize+1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := testtree.Make(t, "his")
			his := filepath.Join(dir, "his")
			if err := os.Chown(his, testtree.Attacker, 0); err != nil {
				t.Fatal(err)
			}
			d, err := Read(dir)
			if err == nil {
				err = enlarge(his)
			}
			if err != nil {
				t.Fatal(err)
			}
			e := d.Tree["his"]
			e.Sum = "" // as it is now
			from, err := OpenSource(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			to := filepath.Join(t.TempDir(), "his")
			if err := e.Make(nil, from, "his", to, map[string]bool{}); !errors.Is(err, ErrChanged) {
				t.Errorf("got %v, want %v", err, ErrChanged)
			}
			if _, err := os.Lstat(to); err == nil {
				t.Error("half of a copy is left")
			}
		})
	}
}

// TestMakeWithoutAttributesThatDoNotFit: a user's file may be on a file system that holds more of them than that of the
// copy.
func TestMakeWithoutAttributesThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=16"); err != nil { // attributes count as inodes
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	e := Entry{Kind: File, UID: testtree.Attacker, Xattrs: map[string]string{"user.x": strings.Repeat("x", 60<<10)}}
	refused := map[string]bool{}
	if err := e.Make([]byte("text"), Source{}, "", filepath.Join(dir, "his"), refused); err != nil || !refused["user.x"] {
		t.Errorf("refused %v, %v", refused, err)
	}
	e.UID = 0
	if err := e.Make([]byte("text"), Source{}, "", filepath.Join(dir, "roots"), refused); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a file of root's: %v, want %v", err, unix.ENOSPC)
	}
}
