package owned

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRedirect: whoever can make a path lead elsewhere is named, with what to do. In each directory, x is a file.
func TestRedirect(t *testing.T) {
	const user = 4242
	root := t.TempDir()
	var err error
	for _, dir := range []string{"srv/data", "home/u/data", "home/u/links", "var/tmp/x", "var/tmp/root", "var/log/app"} {
		full := filepath.Join(root, dir)
		err = errors.Join(err, os.MkdirAll(full, 0o755), os.WriteFile(full+"/x", nil, 0o600))
	}
	for name, target := range map[string]string{"theirs": "/srv/data", "ours": "data", "over": "/home/u/data",
		"loop": "loop"} {
		err = errors.Join(err, os.Symlink(target, filepath.Join(root, "srv", name)))
	}
	for _, name := range []string{"home/u", "srv/data", "srv/theirs", "var/tmp/x"} {
		err = errors.Join(err, os.Lchown(filepath.Join(root, name), user, user))
	}
	err = errors.Join(err, os.Chmod(root+"/var/tmp", 0o777|os.ModeSticky), os.Chmod(root+"/var/log", 0o775),
		os.Chown(root+"/var/log", 0, 4))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"/srv/data":      "", // the directory itself may be a user's
		"/srv/ours":      "",
		"/srv/missing/x": "",
		"/home/u":        "",
		"/var/tmp":       "",
		"/var/log/app/x": "", // a group may write in /var/log
		"/var/tmp/root":  "", // the directory is sticky
		"/home/u/data":   "/home/u, which it is in, belongs to user 4242",
		"/home/u/new":    "belongs to user 4242",
		"/srv/data/x":    "/srv/data, which it is in, belongs to user 4242",
		"/srv/theirs":    "/srv/theirs is a link of user 4242",
		"/srv/ours/x":    "/srv/data, which it is in, belongs to user 4242",
		"/srv/over":      "/home/u, which it is in, belongs to user 4242",
		"/var/tmp/x":     "everybody can write in /var/tmp",
		"/var/tmp/new":   "everybody can write in /var/tmp",
	} {
		why, err := Redirect(root, p)
		if err != nil || (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, %v; want %q", p, why, err, want)
		}
	}
	if why, err := Redirect(root, "/srv/loop"); why != "" || !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %q, %v", why, err)
	}
}

// TestWrittenByOthers: where users may write, root works with care.
func TestWrittenByOthers(t *testing.T) {
	for name, c := range map[string]struct {
		uid, gid int
		mode     os.FileMode
		acl      bool
		want     bool
	}{
		"root's":                {0, 0, 0o755, false, false},
		"root's group writes":   {0, 0, 0o775, false, false},
		"a user's":              {1234, 0, 0o755, false, true},
		"a group reads":         {0, 4, 0o755, false, false},
		"a group writes":        {0, 4, 0o775, false, true},
		"everybody adds":        {0, 0, 0o777 | os.ModeSticky, false, true},
		"a user of an ACL":      {0, 0, 0o775, true, true},
		"an ACL that is masked": {0, 0, 0o755, true, false},
	} {
		dir := t.TempDir()
		err := os.Chown(dir, c.uid, c.gid)
		if c.acl {
			err = errors.Join(err, unix.Setxattr(dir, ACL, acl(1234), 0))
		}
		if err = errors.Join(err, os.Chmod(dir, c.mode)); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), dir)
		if got := WrittenByOthers(f); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		f.Close()
	}
}
