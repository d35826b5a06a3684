package listing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/owned"
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

// TestMakeWithoutAnACLThatDoesNotFit: the group of the copy has no more rights than the list gave it.
func TestMakeWithoutAnACLThatDoesNotFit(t *testing.T) {
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 4<<20)); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-b", "1024", disk}, {"mount", "-o", "loop", disk, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command[0], err, out)
		}
	}
	defer unix.Unmount(dir, 0)
	// The kernel's form: version 2, then entries of tag, rights and number. The group may only run it, 200 users may more.
	const owner, named, group, mask, other, nobody = 0x01, 0x02, 0x04, 0x10, 0x20, 0xffffffff
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	add := func(tag, rights uint16, id uint32) {
		acl = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(acl, tag), rights)
		acl = binary.LittleEndian.AppendUint32(acl, id)
	}
	add(owner, 6, nobody)
	for id := range uint32(200) {
		add(named, 5, 1000+id)
	}
	add(group, 1, nobody)
	add(mask, 5, nobody)
	add(other, 0, nobody)
	e := Entry{Kind: File, Mode: 0o650, Xattrs: map[string]string{owned.ACL: string(acl)}}
	none := t.TempDir()
	if err := unix.Mount("ramfs", none, "ramfs", 0, ""); err != nil { // has no attributes at all
		t.Fatal(err)
	}
	defer unix.Unmount(none, 0)
	for to, uid := range map[string]uint32{filepath.Join(dir, "his"): testtree.Attacker, filepath.Join(none, "roots"): 0} {
		e.UID = uid
		refused := map[string]bool{}
		if err := e.Make([]byte("text"), Source{}, "", to, refused); err != nil || !refused[owned.ACL] {
			t.Errorf("%s: refused %v, %v", to, refused, err)
			continue
		}
		if st, err := os.Stat(to); err != nil || st.Mode() != 0o610 {
			t.Errorf("%s: mode %v, %v; want %v", to, st.Mode(), err, os.FileMode(0o610))
		}
	}
}
