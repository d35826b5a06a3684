package fetchback

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// roots makes a host root and a running root with users of other numbers, and returns an order between them.
func roots(t *testing.T) Order {
	t.Helper()
	o := Order{Host: t.TempDir(), Root: t.TempDir(), Base: "/etc", Replaced: filepath.Join(t.TempDir(), "replaced")}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:901:901::/:/bin/sh\ngone:x:902:902::/:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:901:\ngone:x:902:\n",
	} {
		testtree.File(t, o.Host, name, text)
		testtree.File(t, o.Root, name, strings.NewReplacer("901", "951", "gone", "other").Replace(text))
	}
	return o
}

func (o Order) do(t *testing.T, p string) Result {
	t.Helper()
	o.Path = p
	r, err := o.Do()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDo: files come with their owners by name, modes, attributes and times; what they replace is kept, and links stay
// links.
func TestDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, as updatectl does")
	}
	o := roots(t)
	conf := testtree.File(t, o.Host, "etc/app/conf", "of the host")
	testtree.File(t, o.Host, "etc/app/same", "the same")
	testtree.File(t, o.Host, "etc/app/deep/er/file", "x")
	for _, err := range []error{
		os.Symlink("/nowhere", filepath.Join(o.Host, "etc/app/link")),
		unix.Mkfifo(filepath.Join(o.Host, "etc/app/fifo"), 0o600),
		os.Chown(conf, 901, 902), unix.Chmod(conf, 0o4750), unix.Setxattr(conf, "user.note", []byte("x"), 0),
		os.Chmod(filepath.Join(o.Host, "etc/app/deep"), 0o700), os.Chown(filepath.Join(o.Host, "etc/app/deep"), 901, 901),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	old := testtree.File(t, o.Root, "etc/app/conf", "of the image")
	testtree.File(t, o.Root, "etc/app/same", "the same")
	testtree.File(t, o.Root, "etc/app/own", "only here")
	link := filepath.Join(o.Root, "etc/app/link")
	if err := errors.Join(os.Symlink("/old", link), os.Lchown(link, 901, 901)); err != nil {
		t.Fatal(err)
	}
	r := o.do(t, "/etc/app")
	slices.Sort(r.Paths)
	want := []string{"/etc/app/conf", "/etc/app/deep/er/file", "/etc/app/link"}
	if !slices.Equal(r.Paths, want) || !r.Replaced {
		t.Errorf("%+v, want %v", r, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(old, &st); err != nil || st.Uid != 951 || st.Gid != 902 || st.Mode&0o7777 != 0o4750 {
		t.Errorf("conf belongs to %d:%d with mode %o (%v)", st.Uid, st.Gid, st.Mode, err)
	}
	deep := filepath.Join(o.Root, "etc/app/deep")
	if err := unix.Stat(deep, &st); err != nil || st.Uid != 951 || st.Mode&0o777 != 0o700 {
		t.Errorf("deep belongs to %d with mode %o (%v)", st.Uid, st.Mode, err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(old, "user.note", value); err != nil || string(value[:n]) != "x" {
		t.Errorf("the attribute is %q (%v)", value, err)
	}
	if target, _ := os.Readlink(link); target != "/nowhere" {
		t.Errorf("the link leads to %q", target)
	}
	if err := unix.Lstat(filepath.Join(o.Replaced, "etc/app/link"), &st); err != nil || st.Uid != 901 {
		t.Errorf("the link that was replaced is kept as one of %d (%v), want 901", st.Uid, err)
	}
	for file, want := range map[string]string{
		old: "of the host", filepath.Join(o.Replaced, "etc/app/conf"): "of the image",
		filepath.Join(o.Root, "etc/app/own"): "only here",
	} {
		if text, err := os.ReadFile(file); string(text) != want {
			t.Errorf("%s is %q (%v), want %q", file, text, err, want)
		}
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "group gone, who owns some of it") ||
		!strings.Contains(notes, "/etc/app/fifo is no file") {
		t.Errorf("the notes are %s", notes)
	}
	if again := o.do(t, "/etc/app"); len(again.Paths) != 0 || again.Replaced {
		t.Errorf("the second time: %+v", again)
	}
}

// TestDoStaysInside: no link leads out of the host root, and none out of the directory that is written to.
func TestDoStaysInside(t *testing.T) {
	o := roots(t)
	outside := t.TempDir()
	testtree.File(t, outside, "secret", "x")
	for _, link := range []struct{ target, name string }{
		{outside, filepath.Join(o.Host, "etc/out")},
		{"../../../../../../../../.." + outside, filepath.Join(o.Host, "etc/up")},
		{outside, filepath.Join(o.Root, "etc/there")},
	} {
		if err := os.Symlink(link.target, link.name); err != nil {
			t.Fatal(err)
		}
	}
	testtree.File(t, o.Host, "etc/there/file", "x")
	for _, p := range []string{"/etc/out/secret", "/etc/up/secret", "/etc/there/file"} {
		o.Path = p
		if r, err := o.Do(); err == nil {
			t.Errorf("%s was fetched: %+v", p, r)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v (%v)", entries, err)
	}
}

// TestDoFollowsNoLinkOfOthers: who may write in the directory that is written to can replace it by a link at any
// moment. No file appears behind the link, and nothing there changes its owner.
func TestDoFollowsNoLinkOfOthers(t *testing.T) {
	o := roots(t)
	o.Base = "/home"
	testtree.File(t, o.Host, "home/alice/dir/file", "x")
	testtree.File(t, o.Host, "home/alice/dir/sub/file", "x")
	for _, dir := range []string{"home/alice/dir", "home/alice/dir/sub"} {
		if err := os.Chown(filepath.Join(o.Host, dir), 901, 901); err != nil {
			t.Fatal(err)
		}
	}
	bob := filepath.Dir(testtree.File(t, o.Root, "home/bob/own", "x"))
	alice := filepath.Join(o.Root, "home/alice")
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, alice+"/dir", unix.AT_FDCWD, alice+"/link", unix.RENAME_EXCHANGE)
			}
		}
	}()
	o.Path = "/home/alice/dir"
	for i := range 200 {
		err := errors.Join(os.Mkdir(alice, 0o755), os.Symlink("../bob", alice+"/link"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = o.Do() // refused whenever the link is seen
		if err := os.Rename(alice, fmt.Sprintf("%s/home/before%d", o.Root, i)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	<-ended
	var st unix.Stat_t
	if err := unix.Stat(bob, &st); err != nil || st.Uid != 0 {
		t.Errorf("bob's directory belongs to %d (%v)", st.Uid, err)
	}
	if entries, err := os.ReadDir(bob); err != nil || len(entries) != 1 {
		t.Errorf("bob has %v (%v)", entries, err)
	}
}

// TestDoRefuses: a directory does not replace a file, nor the other way round, and what is not there is reported.
func TestDoRefuses(t *testing.T) {
	o := roots(t)
	testtree.File(t, o.Host, "etc/dir/file", "x")
	testtree.File(t, o.Root, "etc/dir", "x")
	testtree.File(t, o.Host, "etc/file", "x")
	testtree.File(t, o.Root, "etc/file/in", "x")
	for p, want := range map[string]error{
		"/etc/dir": ErrDifferent, "/etc/file": ErrDifferent, "/etc/none": fs.ErrNotExist,
	} {
		o.Path = p
		if _, err := o.Do(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", p, err, want)
		}
	}
}
