package machine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// usersHost has the /etc directories of a host root and of an image root, and moves between them.
type usersHost struct {
	*testing.T
	dir     string
	running string
}

func (h *usersHost) etc(root string) string { return filepath.Join(h.dir, root, "etc") }

func (h *usersHost) set(root, passwd, shadow string) {
	testtree.File(h.T, h.etc(root), "passwd", "root:x:0:0:root:/root:/bin/sh\n"+passwd)
	testtree.File(h.T, h.etc(root), "group", "root:x:0:\n")
	testtree.File(h.T, h.etc(root), "shadow", "root:*:1::::::\n"+shadow)
}

func (h *usersHost) move(to string, back bool) {
	h.Helper()
	etcs := map[string]string{h.running: h.etc(h.running)}
	if back {
		etcs[to] = h.etc(to)
	}
	notes, err := hostTrees{&store.Store{}}.CarryUsers(UserMove{
		History: filepath.Join(h.dir, "users.json"), Ledger: filepath.Join(h.dir, "ids.json"), Etcs: etcs,
		To: to, Etc: h.etc(to), Return: back,
	})
	if err != nil || len(notes) > 0 {
		h.Fatal(notes, err)
	}
	h.running = to
	time.Sleep(time.Millisecond)
}

func (h *usersHost) has(root string, want, not []string) {
	h.Helper()
	var all strings.Builder
	for _, file := range []string{"passwd", "shadow"} {
		text, err := os.ReadFile(filepath.Join(h.etc(root), file))
		if err != nil {
			h.Fatal(err)
		}
		all.Write(text)
	}
	for _, w := range want {
		if !strings.Contains(all.String(), w) {
			h.Errorf("%s has no %q:\n%s", root, w, all.String())
		}
	}
	for _, n := range not {
		if strings.Contains(all.String(), n) {
			h.Errorf("%s has %q:\n%s", root, n, all.String())
		}
	}
}

const (
	aliceLine = "alice:x:1000:1000::/home/alice:/bin/sh\n"
	bobLine   = "bob:x:1001:1001::/home/bob:/bin/sh\n"
	eveLine   = "eve:x:1002:1002::/home/eve:/bin/sh\n"
	mysqlLine = "mysql:x:110:110::/:/bin/false\n"
)

// TestCarryUsers: a rollback to the host root, or to any root with an older /etc, brings along the password that was
// changed, the user who is new, and the deletion, from all roots that ran since.
func TestCarryUsers(t *testing.T) {
	h := &usersHost{t, t.TempDir(), "host"}
	h.set("host", mysqlLine+aliceLine+bobLine, "alice:old:1::::::\nbob:b:1::::::\n")
	h.set("v1", aliceLine+bobLine, "alice:old:1::::::\nbob:b:1::::::\n") // merged, without the service of the host
	h.move("v1", false)
	h.set("v1", aliceLine, "alice:one:2::::::\n")
	h.set("v2", aliceLine, "alice:one:2::::::\n")
	h.move("v2", false)
	h.set("v2", aliceLine+eveLine, "alice:two:3::::::\neve:e:3::::::\n")
	h.move("host", true)
	h.has("host", []string{mysqlLine, aliceLine, eveLine, "alice:two:3", "eve:e:3"}, []string{"bob", ":old:"})
	h.set("host", mysqlLine+aliceLine+eveLine, "alice:host:4::::::\neve:e:3::::::\n")
	h.move("v1", true)
	h.has("v1", []string{aliceLine, eveLine, "alice:host:4"}, []string{"bob", "mysql"})
	if text, err := os.ReadFile(filepath.Join(h.dir, "ids.json")); err != nil || !strings.Contains(string(text), "eve") {
		t.Errorf("the number of eve is not reserved: %s, %v", text, err)
	}
	if st, err := os.Stat(filepath.Join(h.dir, "users.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the history has the mode %v, %v", st.Mode(), err)
	}
}

// TestCarryUsersAfterFullReboot: changes made in a root that ended with a full reboot are not lost.
func TestCarryUsersAfterFullReboot(t *testing.T) {
	h := &usersHost{t, t.TempDir(), "host"}
	h.set("host", aliceLine, "alice:old:1::::::\n")
	h.set("v1", aliceLine, "alice:old:1::::::\n")
	h.move("v1", false)
	h.set("v1", aliceLine, "alice:new:2::::::\n")
	h.running = "host" // the full reboot
	h.move("v1", true)
	h.has("v1", []string{"alice:new:2"}, nil)
	h.move("host", true)
	h.has("host", []string{"alice:new:2"}, nil)
}

// TestCarryUsersWithoutOneRoot: a root whose databases cannot be read keeps nothing from the others.
func TestCarryUsersWithoutOneRoot(t *testing.T) {
	h := &usersHost{t, t.TempDir(), "host"}
	h.set("host", aliceLine, "alice:old:1::::::\n")
	h.set("v1", aliceLine, "alice:old:1::::::\n")
	h.move("v1", false)
	h.set("v1", aliceLine, "alice:new:2::::::\n")
	if err := os.WriteFile(filepath.Join(h.dir, "no-directory"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := hostTrees{&store.Store{}}.CarryUsers(UserMove{
		History: filepath.Join(h.dir, "users.json"), Ledger: filepath.Join(h.dir, "ids.json"),
		Etcs: map[string]string{"host": h.etc("host"), "v1": h.etc("v1"), "v0": filepath.Join(h.dir, "no-directory/etc")},
		To:   "host", Etc: h.etc("host"), Return: true,
	})
	if !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("the root that cannot be read is not named: %v", err)
	}
	h.has("host", []string{"alice:new:2"}, nil)
}

// TestCarryUsersOfAnotherEtc: a root that got its former /etc back after a failed trial changed nothing by that.
func TestCarryUsersOfAnotherEtc(t *testing.T) {
	h := &usersHost{t, t.TempDir(), "host"}
	h.set("host", aliceLine, "alice:new:2::::::\n")
	h.set("v1", aliceLine, "alice:new:2::::::\n")
	h.move("v1", false)
	h.running = "host"
	if err := os.Rename(h.etc("v1"), h.etc("v1")+".failed"); err != nil {
		t.Fatal(err)
	}
	h.set("v1", aliceLine+bobLine, "alice:old:1::::::\n")
	h.move("v1", true)
	h.move("host", true)
	h.has("host", []string{"alice:new:2"}, []string{"bob"})
}

func TestChangedInEtc(t *testing.T) {
	h := &usersHost{t, t.TempDir(), "host"}
	h.set("host", "", "")
	h.set("v1", "", "")
	testtree.File(t, h.etc("v1"), "motd", "of the image")
	history := filepath.Join(h.dir, "users.json")
	trees := hostTrees{&store.Store{}}
	if got, err := trees.ChangedInEtc(history, "v1", h.etc("v1")); err != nil || got != nil {
		t.Errorf("before it is known: %v, %v", got, err)
	}
	time.Sleep(20 * time.Millisecond) // the clock of files is coarse
	h.move("v1", false)
	time.Sleep(20 * time.Millisecond)
	testtree.File(t, h.etc("v1"), "ssh/sshd_config", "Port 2222\n")
	h.set("v1", aliceLine, "")
	got, err := trees.ChangedInEtc(history, "v1", h.etc("v1"))
	if err != nil || !slices.Equal(got, []string{"ssh/sshd_config"}) {
		t.Errorf("changed: %v, %v", got, err)
	}
}

// TestCarryUsersIntoTheHostRoot: users are written to the host root although it is
// mounted read-only; the mount that services see stays read-only.
func TestCarryUsersIntoTheHostRoot(t *testing.T) {
	h := &usersHost{t, t.TempDir(), "host"}
	h.set("host", aliceLine, "alice:old:1::::::\n")
	h.set("v1", aliceLine, "alice:old:1::::::\n")
	h.move("v1", false)
	h.set("v1", aliceLine, "alice:new:2::::::\n")
	at := t.TempDir()
	if err := errors.Join(unix.Mount(filepath.Join(h.dir, "host"), at, "", unix.MS_BIND, ""),
		unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	notes, err := hostTrees{&store.Store{}}.CarryUsers(UserMove{
		History: filepath.Join(h.dir, "users.json"), Ledger: filepath.Join(h.dir, "ids.json"),
		Etcs: map[string]string{"v1": h.etc("v1"), "host": at + "/etc"},
		To:   "host", Etc: at + "/etc", HostMount: at, Return: true,
	})
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	h.has("host", []string{"alice:new:2"}, nil)
	if err := os.WriteFile(at+"/etc/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to the host root: %v", err)
	}
}
