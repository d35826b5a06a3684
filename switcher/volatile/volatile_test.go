package volatile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/vbatts/go-mtree"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// inNamespace calls do in a mount namespace of its own, with an empty /run.
func inNamespace(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can mount; run the tests as root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := errors.Join(
			unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", "/run", "tmpfs", 0, ""),
		); err != nil {
			t.Error(err)
			return
		}
		do()
	}()
	<-done
}

// listing returns everything about a tree, but access times, as lines.
func listing(t *testing.T, dir string, more ...mtree.Keyword) *mtree.DirectoryHierarchy {
	t.Helper()
	keywords := append([]mtree.Keyword{"type", "mode", "uid", "gid", "link", "time", "sha256digest", "xattr"}, more...)
	tree, err := mtree.Walk(dir, nil, keywords, nil)
	if err != nil {
		t.Error(err)
	}
	return tree
}

// whole is what an overlay shows otherwise for a directory.
var whole = []mtree.Keyword{"size", "nlink"}

func differences(t *testing.T, before, after *mtree.DirectoryHierarchy) (all []string) {
	t.Helper()
	list, err := mtree.Compare(before, after, nil)
	if err != nil {
		t.Error(err)
	}
	for _, d := range list {
		all = append(all, d.Path()+": "+string(d.Type()))
	}
	return all
}

// makeRoot makes a root with state on two file systems, and the agent's own directory. It must run in a namespace.
func makeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	const setUp = `cd "$1"; mkdir -p var etc home
mount -t tmpfs -o nosuid,mode=0751 disk1 var; mkdir -p var/lib/app/old var/lib/db var/lib/own var/lib/empty
mount -t tmpfs disk2 var/lib/db; mount -t tmpfs -o ro disk3 home
cd var/lib; echo one > app/changed; echo two > app/removed; echo three > app/old/file; ln app/changed app/linked
echo data > db/table; echo record > own/state; ln -s changed app/link; chown 5:6 app/old; chmod 4750 app/removed
touch -d 2001-01-01 app/changed app/old db/table .`
	if out, err := exec.Command("sh", "-ec", setUp, "sh", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Setxattr(filepath.Join(root, "var/lib/app/removed"), "trusted.lab", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestCover: whatever happens on the copies, what is beneath is as it was, and the agent's own directory is the real
// one.
func TestCover(t *testing.T) {
	inNamespace(t, func() {
		root := makeRoot(t)
		real := filepath.Join(root, "var")
		before, content := listing(t, real, whole...), listing(t, real)
		if err := Cover(root, "/var/lib/own", "/etc"); err != nil {
			t.Error(err)
			return
		}
		if diff := differences(t, content, listing(t, real)); len(diff) > 0 {
			t.Errorf("the copy differs from the state before anything is changed: %v", diff)
		}
		const migrate = `cd "$1"/var/lib; echo new > app/changed; rm app/removed; mv app/old app/moved; echo more > app/added
chown 7:8 app/linked db; chmod 600 db/table; rm -r empty; echo gone > db/table; mkdir db/new
[ "$(cat app/linked)" = new ]; echo written > own/state; rmdir ../none 2>&1 | grep -q none
setfattr -n trusted.lab -v y app/added 2>/dev/null || :`
		if out, err := exec.Command("sh", "-ec", migrate, "sh", root).CombinedOutput(); err != nil {
			t.Errorf("a migration fails on the copy: %v: %s", err, out)
		}
		if diff := differences(t, content, listing(t, real)); len(diff) < 8 {
			t.Errorf("the copy does not show what was changed: %v", diff)
		}
		if err := os.WriteFile(filepath.Join(root, "home/x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("the copy of a read-only mount can be written: %v", err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(real, &st); err != nil || st.Flags&unix.ST_NOSUID == 0 {
			t.Errorf("the copy lost a flag: %x, %v", st.Flags, err)
		}
		for range 2 { // nothing of it lasts
			err := Beneath(func() error {
				diff := differences(t, before, listing(t, real, whole...))
				diff = slices.DeleteFunc(diff, func(d string) bool { return strings.HasPrefix(d, "lib/own/state:") })
				if len(diff) > 0 {
					t.Errorf("the state beneath is changed: %v", diff)
				}
				if text, err := os.ReadFile(filepath.Join(real, "lib/own/state")); string(text) != "written\n" {
					t.Errorf("the agent's own directory is a copy: %q, %v", text, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if is, err := facts.IsVolatile(); err != nil || !is {
			t.Errorf("the copies are gone: %v", err)
		}
		exposed, err := Exposed([]string{real, root + "/home", root + "/etc", real + "/lib/db", root + "/none"}, real)
		if err != nil || !slices.Equal(exposed, []string{root + "/etc"}) {
			t.Errorf("exposed are %v, %v", exposed, err)
		}
	})
}

func TestIsDiskBelow(t *testing.T) {
	for _, c := range []struct {
		source, at string
		want       bool
	}{
		{"/dev/vdb", "/var/lib/pgsql", true},
		{"/dev/vdb", "/var", false},
		{"/dev/vdb", "/variety", false},
		{"/dev/vdb", "/data", false},
		{"tmpfs", "/var/tmp", false},
		{switcher.VolatilePrefix + "/var/lib/pgsql", "/var/lib/pgsql", false},
	} {
		got := isDiskBelow(&mountinfo.Info{Source: c.source, Mountpoint: c.at}, []string{"/var", "/home"})
		if got != c.want {
			t.Errorf("%s at %s: %t", c.source, c.at, got)
		}
	}
}

// TestBeneathPlain: a root without copies is looked at as it is, in its own namespace.
func TestBeneathPlain(t *testing.T) {
	inNamespace(t, func() {
		var there, here string
		err := Beneath(func() (err error) { there, err = os.Readlink("/proc/thread-self/ns/mnt"); return err })
		if here, _ = os.Readlink("/proc/thread-self/ns/mnt"); err != nil || there != here {
			t.Errorf("it ran in %s, not in %s: %v", there, here, err)
		}
	})
}

// TestBeneathCovered: what a trial mounts over its copies hides nothing from the next root, and an error comes through.
func TestBeneathCovered(t *testing.T) {
	inNamespace(t, func() {
		root := makeRoot(t)
		if err := errors.Join(
			Cover(root, "/var/lib/own"),
			unix.Mount("tmpfs", filepath.Join(root, "var"), "tmpfs", 0, ""),
			unix.Mount("tmpfs", filepath.Join(root, "home"), "tmpfs", 0, ""),
		); err != nil {
			t.Error(err)
			return
		}
		want := errors.New("as it was")
		err := Beneath(func() error {
			text, err := os.ReadFile(filepath.Join(root, "var/lib/db/table"))
			if string(text) != "data\n" {
				t.Errorf("beneath is %q, %v", text, err)
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Error(err)
		}
	})
}

// TestTry refuses what two copies would tear apart, and what no copy can be made of.
func TestTry(t *testing.T) {
	inNamespace(t, func() {
		root := makeRoot(t)
		at := func(p string) string { return filepath.Join(root, p) }
		if err := Try([]string{at("var"), at("var/lib/db"), at("home")}, at("var/lib/own")); err != nil {
			t.Error(err)
		}
		if err := errors.Join(
			os.Mkdir(at("twice"), 0o755), unix.Mount(at("var/lib/app"), at("twice"), "", unix.MS_BIND, ""),
		); err != nil {
			t.Error(err)
		}
		err := Try([]string{at("var"), at("twice")}, at("var/lib/own"))
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "show the same files") {
			t.Errorf("two mounts of the same files: %v", err)
		}
		if err := Try([]string{"/proc"}, at("var/lib/own")); !errors.Is(err, ErrState) ||
			!strings.Contains(err.Error(), "/proc (proc)") {
			t.Errorf("no copy can be made of proc: %v", err)
		}
		if is, err := facts.IsVolatile(); err != nil || is {
			t.Errorf("a try leaves a copy: %v", err)
		}
	})
}
