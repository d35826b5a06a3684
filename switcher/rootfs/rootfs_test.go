package rootfs

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestAcceptable(t *testing.T) {
	good := []string{"etc/os-release -> ../usr/lib/os-release", "usr/lib/os-release", "usr/lib/systemd/systemd",
		"dev/", "proc/", "sys/", "run/"}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.HasPrefix(s, name) })
	}
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"whole": {good, ""},
		"no os-release": {
			slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.Contains(s, "os-release") }),
			"no os-release",
		},
		"no init": {without("usr/lib/systemd"), "no executable init"},
		"init by link": {
			append(without("usr/lib/systemd"), "sbin -> usr/sbin", "usr/sbin/init -> ../../opt/init", "opt/init"), "",
		},
		"init outside": {append(without("usr/lib/systemd"), "sbin/init -> /nowhere/init"), "no executable init"},
		"no /dev":      {without("dev"), "no directory /dev"},
		"no /run":      {without("run"), "no directory /run"},
		"/sys a link":  {append(without("sys"), "sys -> nowhere"), "no directory /sys"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Acceptable(testtree.Make(t, c.files...))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Acceptable = %v, want %q", err, c.want)
			}
		})
	}
}

// TestLinksStayInside: a directory that is exchanged for a link out of the root while it is looked up leads nowhere.
func TestLinksStayInside(t *testing.T) {
	outside := testtree.Make(t, "file", "only-outside/")
	root := testtree.Make(t, "dir/file", "swap -> "+outside)
	testtree.File(t, root, "dir/file", "inside")
	dir, swap := filepath.Join(root, "dir"), filepath.Join(root, "swap")
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, swap, unix.RENAME_EXCHANGE)
			}
		}
	}()
	read := 0
	for range 5_000 {
		if text, err := Dir(root).ReadFile("dir/file", 100); err == nil {
			read++
			if string(text) != "inside" {
				t.Fatalf("read %q, which is outside", text)
			}
		}
		if names := Dir(root).Names("dir"); slices.Contains(names, "only-outside") {
			t.Fatalf("listed %q, which are outside", names)
		}
		if Dir(root).HasDir("dir/only-outside") {
			t.Fatal("found a directory that is outside")
		}
	}
	if read == 0 {
		t.Error("the file was never read")
	}
}
