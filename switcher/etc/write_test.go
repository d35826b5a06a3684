package etc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/adopted"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// onDisk writes a tree to a directory; every file has the time stamp.
func (t tree) onDisk(tb testing.TB, dir string) string {
	tb.Helper()
	return testtree.Files(t).OnDisk(tb, dir)
}

var stamp = testtree.Stamp

func read1(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMergeOnDisk(t *testing.T) {
	dir := t.TempDir()
	old := tree{"passwd": lines(root, "svc:x:100:0:::"), "a": "1", "svc.conf": "1"}.onDisk(t, dir+"/old")
	cur := tree{"passwd": lines(root, "mine:x:101:0:::", "svc:x:105:0:::"), "a": "1", "local": "L|4750",
		"l": "-> /nowhere", "svc.conf": "1"}.onDisk(t, dir+"/cur")
	next := tree{"passwd": lines(root, "svc:x:101:0:::", "new:x:105:0:::"), "a": "2", "d/": "|1770",
		"svc.conf": "2|640", "new.conf": "1"}.onDisk(t, dir+"/next")
	for name, uid := range map[string]int{
		old + "/svc.conf":  100,
		cur + "/svc.conf":  105,
		next + "/svc.conf": 101,
		next + "/new.conf": 105,
		cur + "/l":         77,
		cur + "/local":     88,
	} {
		mode, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(name, uid, 7); err != nil {
			t.Fatal(err)
		}
		if mode.Mode().IsRegular() {
			info := mode.Mode().Perm()
			if name == cur+"/local" {
				info |= os.ModeSetuid
			}
			if err := os.Chmod(name, info); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(next+"/d", 0o770|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for attr, value := range map[string]string{
		"trusted.t":           "1",
		"security.capability": capability,
		"user.u":              strings.Repeat("x", 2000),
	} {
		if err := unix.Lsetxattr(cur+"/local", attr, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Lsetxattr(cur+"/l", "trusted.t", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	for name, dev := range map[string]int{cur + "/null": int(unix.Mkdev(1, 3)), cur + "/fifo": -1} {
		kind := uint32(unix.S_IFCHR)
		if dev < 0 {
			kind, dev = unix.S_IFIFO, 0
		}
		if err := unix.Mknod(name, kind|0o640, dev); err != nil {
			t.Fatal(err)
		}
	}

	// The running /etc is given as a descriptor, as it is during the switch.
	fd, err := os.Open(cur)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	in := Inputs{Old: old, Current: fmt.Sprintf("/proc/self/fd/%d", fd.Fd()), Next: next, Ledger: dir + "/state/ids.json"}
	dst := dir + "/roots/x/etc"
	plan, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/roots"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Plan wrote something")
	}
	if _, err := os.Stat(in.Ledger); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Plan wrote the ledger")
	}
	report, err := Merge(in, dst)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(plan) != fmt.Sprint(report) {
		t.Errorf("plan and merge differ:\n%+v\n%+v", plan, report)
	}
	if !slices.Contains(report.Notes, "fifo: a socket or FIFO; not carried over") {
		t.Errorf("notes: %q", report.Notes)
	}

	got, err := readSnapshot(dst)
	if err != nil {
		t.Fatal(err)
	}
	curSide, _ := readSnapshot(cur)
	nextSide, _ := readSnapshot(next)
	for name, want := range map[string]listing.Entry{
		".": nextSide.Tree["."], "a": nextSide.Tree["a"], "d": nextSide.Tree["d"],
		"local": curSide.Tree["local"], "l": curSide.Tree["l"], "null": curSide.Tree["null"],
	} {
		if e := got.Tree[name]; !listing.Same(e, want, true, true) || !e.MTime.Equal(want.MTime) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, e, want)
		}
	}
	if e := got.Tree["local"]; e.Mode != 0o4750 || e.UID != 88 || len(e.Xattrs) != 3 ||
		e.Xattrs["security.capability"] != capability {
		t.Errorf("local: %+v", e)
	}
	if e := got.Tree["d"]; e.Mode != 0o1770 || !e.MTime.Equal(stamp) {
		t.Errorf("d: %+v", e)
	}
	if e := got.Tree["svc.conf"]; e.UID != 105 || e.Mode != 0o640 || read1(t, dst+"/svc.conf") != "2" {
		t.Errorf("svc.conf: %+v", e)
	}
	if e := got.Tree["new.conf"]; e.UID != 999 {
		t.Errorf("new.conf belongs to %d, its user got 999", e.UID)
	}
	if len(got.Tree) != 9 {
		t.Errorf("%d paths: %v", len(got.Tree), got.Tree)
	}
	if want := lines(root, "mine:x:101:0:::", "svc:x:105:0:::", "new:x:999:0:::"); read1(t, dst+"/passwd") != want {
		t.Errorf("passwd: %q", read1(t, dst+"/passwd"))
	}
	for name, mode := range map[string]os.FileMode{
		"/roots":          0o700,
		"/roots/x":        0o700,
		"/state":          0o700,
		"/state/ids.json": 0o600,
	} {
		if info, err := os.Stat(dir + name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	if l := read1(t, in.Ledger); !strings.Contains(l, `"105": "svc"`) || !strings.Contains(l, `"999": "new"`) {
		t.Errorf("ledger: %s", l)
	}

	// Again, over the first result and over the leftovers of an interrupted run.
	if err := os.MkdirAll(dst+".new/rubbish", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dst+"/rubbish", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Merge(in, dst)
	if err != nil {
		t.Fatal(err)
	}
	second, err := readSnapshot(dst)
	if err != nil {
		t.Fatal(err)
	}
	if !sameListing(got.Tree, second.Tree) || !got.Tree["."].MTime.Equal(second.Tree["."].MTime) {
		t.Error("the second merge made something else")
	}
	if len(again.Conflicts) != len(report.Conflicts) || len(again.Conflicts) == 0 {
		t.Errorf("conflicts: %q, then %q", report.Conflicts, again.Conflicts)
	}
	if left, _ := filepath.Glob(dst + ".*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestMergeFailsWithoutTouchingAnything(t *testing.T) {
	dir := t.TempDir()
	cur := tree{"f": "L"}.onDisk(t, dir+"/cur")
	next := tree{"f": "1"}.onDisk(t, dir+"/next")
	huge := tree{}.onDisk(t, dir+"/huge")
	if err := os.WriteFile(huge+"/fstab", make([]byte, fstab.MaxSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/ledger", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := tree{"before": "1"}.onDisk(t, dir+"/dst")
	for _, test := range []struct {
		name string
		in   Inputs
		dst  string
		want error
	}{
		{"no current", Inputs{Current: dir + "/none", Next: next}, dst, fs.ErrNotExist},
		{"no old", Inputs{Old: dir + "/none", Current: cur, Next: next}, dst, fs.ErrNotExist},
		{"fstab too large", Inputs{Current: huge, Next: next}, dst, listing.ErrTooLarge},
		{"bad pattern", Inputs{Current: cur, Next: next, Adopt: []string{"../x"}}, dst, adopted.ErrPattern},
		{"over an input", Inputs{Current: cur, Next: next}, cur, fs.ErrInvalid},
	} {
		if _, err := Merge(test.in, test.dst); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if _, err := Merge(Inputs{Current: cur, Next: next, Ledger: dir + "/ledger"}, dst); err == nil ||
		!strings.Contains(err.Error(), "cannot read "+dir+"/ledger") {
		t.Errorf("damaged ledger: %v", err)
	}
	if read1(t, dst+"/before") != "1" || read1(t, cur+"/f") != "L" {
		t.Error("something was touched")
	}
}

func TestMountsAreNotCrossed(t *testing.T) {
	dir := t.TempDir()
	old := tree{"d/a": "1", "hosts": "1"}.onDisk(t, dir+"/old")
	cur := tree{"d/a": "1", "hosts": "1", "mine/x": "1"}.onDisk(t, dir+"/cur")
	next := tree{"d/a": "2", "hosts": "2"}.onDisk(t, dir+"/next")
	bind := tree{"hosts": "mounted"}.onDisk(t, dir+"/bind")

	var report Report
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with its mounts, which the host never sees.
		runtime.LockOSThread()
		err = errors.Join(
			unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", cur+"/d", "tmpfs", 0, ""),
			os.WriteFile(cur+"/d/hidden", nil, 0o600),
			unix.Mount(bind+"/hosts", cur+"/hosts", "", unix.MS_BIND, ""),
		)
		if err == nil {
			report, err = Merge(Inputs{Old: old, Current: cur, Next: next}, dir+"/dst")
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if read1(t, dir+"/dst/d/a") != "2" || read1(t, dir+"/dst/hosts") != "2" || read1(t, dir+"/dst/mine/x") != "1" {
		t.Error("a mount counts as a local change")
	}
	if _, err := os.Stat(dir + "/dst/d/hidden"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a mount was crossed")
	}
	if len(report.Notes) != 2 || len(report.Conflicts) != 0 {
		t.Errorf("%+v", report)
	}
}

// The checkers of the shadow suite accept the result of merging valid inputs.
func TestShadowSuiteAccepts(t *testing.T) {
	dir := t.TempDir()
	old := tree{
		"passwd": lines(root, "svc:x:100:100::/:/usr/sbin/nologin"),
		"shadow": lines("root:*:1:0:99999:7:::", "svc:!:1::::::"),
		"group":  lines("root:x:0:", "adm:x:4:svc", "svc:x:100:"), "gshadow": lines("root:*::", "adm:*::svc", "svc:!::"),
	}.onDisk(t, dir+"/old")
	cur := tree{
		"passwd": lines(root, "svc:x:100:100::/:/usr/sbin/nologin", "alice:x:1000:1000::/:/bin/sh",
			"hostd:x:101:101::/:/usr/sbin/nologin"),
		"shadow": lines("root:$6$x$y:2:0:99999:7:::", "svc:!:1::::::", "alice:$6$x$z:2:0:99999:7:::", "hostd:!:1::::::"),
		"group": lines("root:x:0:", "adm:x:4:svc,alice", "svc:x:100:", "alice:x:1000:", "hostd:x:101:",
			"docker:x:102:alice,hostd"),
		"gshadow": lines("root:*::", "adm:*::svc,alice", "svc:!::", "alice:!::", "hostd:!::", "docker:!::alice,hostd"),
	}.onDisk(t, dir+"/cur")
	next := tree{
		"passwd": lines(root, "web:x:101:101::/:/usr/sbin/nologin"),
		"shadow": lines("root:*:3:0:99999:7:::", "web:!:1::::::"),
		"group":  lines("root:x:0:", "adm:x:4:web", "web:x:101:"), "gshadow": lines("root:*::", "adm:*::web", "web:!::"),
	}.onDisk(t, dir+"/next")
	for _, in := range []Inputs{{Old: old, Current: cur, Next: next}, {Current: cur, Next: next}} {
		dst := dir + "/dst"
		if _, err := Merge(in, dst); err != nil {
			t.Fatal(err)
		}
		for _, check := range [][]string{
			{"pwck", "-r", "-q", dst + "/passwd", dst + "/shadow"},
			{"grpck", "-r", dst + "/group", dst + "/gshadow"},
		} {
			// The checkers look up members in the machine's own passwd, so only the form of the lines and the pairing of the
			// files count.
			out, err := exec.Command("/usr/sbin/"+check[0], check[1:]...).CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			for _, bad := range []string{"invalid", "duplicate", "no matching", "delete line", "add "} {
				if strings.Contains(string(out), bad) {
					t.Errorf("old %q: %v: %s", in.Old, check, out)
					break
				}
			}
		}
	}
}

// TestMergeCarriesProtection: a file that chattr(1) protects stays as it is, also if the image changes it, and is
// protected in every copy. A protected copy can be replaced.
func TestMergeCarriesProtection(t *testing.T) {
	dir := t.TempDir()
	in := Inputs{
		Old:     tree{"resolv.conf": "old", "log": "old", "d/": "", "d/f": "old"}.onDisk(t, filepath.Join(dir, "old")),
		Current: tree{"resolv.conf": "old", "log": "old", "d/": "", "d/f": "old"}.onDisk(t, filepath.Join(dir, "current")),
		Next:    tree{"resolv.conf": "new", "log": "new", "d/": "", "d/f": "new"}.onDisk(t, filepath.Join(dir, "next")),
	}
	t.Cleanup(func() { _ = durable.RemoveAll(dir) })
	flags := map[string]int{
		"resolv.conf": unix.STATX_ATTR_IMMUTABLE, "log": unix.STATX_ATTR_APPEND, "d": unix.STATX_ATTR_IMMUTABLE, "d/f": 0,
	}
	for name, flag := range flags {
		if err := durable.SetFlags(filepath.Join(in.Current, name), durable.Protected, flag); err != nil {
			t.Fatal(err)
		}
	}
	dst := filepath.Join(dir, "dst")
	for range 2 { // the second time, over the protected copy of the first
		if _, err := Merge(in, dst); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range flags {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, filepath.Join(dst, name), 0, unix.STATX_BASIC_STATS, &st); err != nil {
			t.Fatal(err)
		}
		if got := int(st.Attributes) & durable.Protected; got != want {
			t.Errorf("%s has the flags %#x, want %#x", name, got, want)
		}
	}
	for name, want := range map[string]string{"resolv.conf": "old", "log": "old", "d/f": "new"} {
		if got, err := os.ReadFile(filepath.Join(dst, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}
