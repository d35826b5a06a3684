package holding

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestLeft: a process is found that runs from a file system which is mounted nowhere any more, and none of those that
// have memory files or files on other mounts.
func TestLeft(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	testtree.Write(t, dir, "/sleep", program, 0o755)
	cmd := exec.Command(filepath.Join(dir, "sleep"), "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	holders, err := Left()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range holders {
		if h.PID == os.Getpid() {
			t.Errorf("this test holds %v", h.Holds)
		}
		if h.PID != cmd.Process.Pid {
			continue
		}
		if h.Name != "sleep" || !strings.Contains(strings.Join(h.Holds, "\n"), "the program /sleep") {
			t.Errorf("the holder is %+v", h)
		}
		return
	}
	t.Errorf("the process is not found: %+v", holders)
}

// TestOf: a process of a group that runs from the root holds it.
func TestOf(t *testing.T) {
	groups := t.TempDir()
	pid := "self"
	testtree.File(t, groups, "/system.slice/a.service/cgroup.procs", pid+"\n")
	v := view{"/proc", groups}
	holds, err := v.of("/system.slice/a.service", nil)
	if err != nil {
		t.Fatal(err)
	}
	root, rerr := placeOf("/")
	self, serr := placeOf("/proc/self/exe")
	if rerr != nil || serr != nil {
		t.Fatal(rerr, serr)
	}
	isHeld := strings.Contains(strings.Join(holds, "\n"), "the program ")
	if !v.hasOwnMounts(pid) && isHeld != (root.mount == self.mount) {
		t.Errorf("this test holds %v, its program is on %v and the root on %v", holds, self, root)
	}
	if holds, err := v.of("/system.slice/a.service", []string{""}); !v.hasOwnMounts(pid) && len(holds) > 0 || err != nil {
		t.Errorf("with everything kept, this test holds %v, %v", holds, err)
	}
	if holds, err := v.of("", nil); holds != nil || err != nil {
		t.Errorf("no group: %v, %v", holds, err)
	}
}

// TestShorten: the first stand for many.
func TestShorten(t *testing.T) {
	if got := strings.Join(shorten([]string{"a", "b", "a", "c", "d", "e", "f"}), " "); got != "a b c d 2 more" {
		t.Errorf("shorten = %q", got)
	}
}

// TestWithin: whoever asks does not wait for a file on a server that is gone.
func TestWithin(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	if _, err := within(time.Millisecond, func() (int, error) { <-hang; return 1, nil }); !errors.Is(err, ErrTooLong) {
		t.Errorf("a look that hangs: %v", err)
	}
	if n, err := within(time.Minute, func() (int, error) { return 1, fs.ErrNotExist }); n != 1 || err != fs.ErrNotExist {
		t.Errorf("one that does not: %d, %v", n, err)
	}
}
