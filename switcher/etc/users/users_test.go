package users

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/journal"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestUpdateUsers: only user databases change, with their attributes, and the former ones are kept.
func TestUpdateUsers(t *testing.T) {
	dir := t.TempDir()
	const passwd = "root:x:0:0:root:/root:/bin/bash\nbob:x:1001:1001::/:/bin/sh\n"
	const shadow = "root:*:1::::::\nbob:old:1::::::\n"
	testtree.File(t, dir, "passwd", passwd)
	testtree.File(t, dir, "group", "root:x:0:\n")
	testtree.File(t, dir, "shadow", shadow)
	testtree.File(t, dir, "hostname", "h\n")
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Chown(at("shadow"), 0, 42), os.Chmod(at("shadow"), 0o640),
		unix.Setxattr(at("shadow"), "user.label", []byte("x"), 0)); err != nil {
		t.Fatal(err)
	}
	before, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Journal{}
	now := map[string][]byte{
		"passwd": []byte(passwd), "group": []byte("root:x:0:\n"), "shadow": []byte(strings.ReplaceAll(shadow, "old", "new")),
	}
	j.Add(Parse(before), Parse(now))
	if notes, err := Update(dir, j); err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	for name, want := range map[string]string{
		"passwd": passwd, "shadow": string(now["shadow"]), "shadow-": shadow, "hostname": "h\n",
	} {
		if got, err := os.ReadFile(at(name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	var st unix.Stat_t
	err = unix.Stat(at("shadow"), &st)
	label := make([]byte, 1)
	_, xerr := unix.Getxattr(at("shadow"), "user.label", label)
	if err != nil || xerr != nil || st.Gid != 42 || st.Mode&0o7777 != 0o640 || label[0] != 'x' {
		t.Errorf("shadow has the group %d and the mode %o: %v, %v", st.Gid, st.Mode&0o7777, err, xerr)
	}
	if _, err := os.Stat(at("passwd-")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("passwd did not change, but has a backup: %v", err)
	}
	names, err := filepath.Glob(at("*.updatectl"))
	if err != nil || len(names) > 0 {
		t.Errorf("left over: %v, %v", names, err)
	}
}

// TestLargeLedger: the ledger of a large host can be read again. What is written once and then refused would stop every
// later update.
func TestLargeLedger(t *testing.T) {
	const names = 80_000
	l, _ := accounts.ParseLedger(nil)
	for id := uint32(100_000); id < 100_000+names; id++ {
		name := fmt.Sprintf("user%d", id)
		l.Users[id], l.Groups[id] = name, name
	}
	file := filepath.Join(t.TempDir(), "ids.json")
	if err := WriteLedger(file, l); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadLedger(file); err != nil || len(got.Users) != names || len(got.Groups) != names {
		t.Errorf("read %d users and %d groups: %v", len(got.Users), len(got.Groups), err)
	}
}
