package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// newGroup returns the hierarchy of this machine, with a new group in which a user's process counts in a file.
func newGroup(t *testing.T) (h Hierarchy, group string, count func() int64) {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil || len(mounts) == 0 {
		t.Fatal("no unified hierarchy: ", err)
	}
	group = fmt.Sprintf("/updatectl-test-%d", os.Getpid())
	dir, out := filepath.Join(mounts[0].Mountpoint, group), filepath.Join(t.TempDir(), "count")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	command := exec.Command("sh", "-c", "while sleep 0.01; do printf x; done")
	command.Stdout = f
	command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd, Credential: &syscall.Credential{Uid: 4242}}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		_ = command.Wait()
		for end := time.Now().Add(10 * time.Second); unix.Rmdir(dir) != nil && time.Now().Before(end); {
			time.Sleep(pause)
		}
	})
	count = func() int64 {
		st, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	pid, proc := fmt.Sprint(command.Process.Pid), t.TempDir() // as if systemd were PID 1
	if err := errors.Join(os.Symlink("/proc/self", proc+"/self"), os.Symlink("/proc/"+pid, proc+"/"+pid),
		os.Mkdir(proc+"/1", 0o755), os.WriteFile(proc+"/1/cgroup", []byte("0::/init.scope\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return Hierarchy{dir: mounts[0].Mountpoint, proc: proc, note: filepath.Join(t.TempDir(), "frozen")}, group, count
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(pause) {
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

// TestFreeze: a frozen process does nothing, until it is thawed by another process that reads the note.
func TestFreeze(t *testing.T) {
	h, group, count := newGroup(t)
	waitFor(t, "counting", func() bool { return count() > 0 })
	groups, err := h.List()
	i := slices.IndexFunc(groups, func(g Group) bool { return g.Path == group })
	if err != nil || i < 0 || groups[i].Frozen || len(groups[i].Processes) == 0 || groups[i].Processes[0].UID != 4242 {
		t.Fatalf("the group is number %d of %+v, %v", i, groups, err)
	}
	if err := os.WriteFile(h.process("1", "cgroup"), []byte("0::/docker/1/init.scope\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := h.List(); err == nil {
		t.Error("in a container that sees the groups of others, there are groups")
	}
	if moving, err := h.Freeze([]string{group, "/no-such-group"}); err != nil || len(moving) > 0 {
		t.Fatalf("%q move, %v", moving, err)
	}
	before := count()
	time.Sleep(200 * time.Millisecond)
	if now := count(); now != before {
		t.Errorf("the frozen process counted from %d to %d", before, now)
	}
	if err := h.ThawLate(); err != nil || h.read(group, "cgroup.freeze") != "1" {
		t.Errorf("it is thawed too early, %v", err)
	}
	if err := os.Chtimes(h.note, time.Time{}, time.Now().Add(-2*Limit)); err != nil {
		t.Fatal(err)
	}
	if err := h.ThawLate(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "counting again", func() bool { return count() > before })
	if _, err := os.Stat(h.note); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note is still there: %v", err)
	}
	if err := errors.Join(h.Thaw(), h.Kill([]string{group, "/no-such-group"})); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "ended", func() bool { return strings.Contains(h.read(group, "cgroup.events"), "populated 0") })
}

// TestEnded: a process that ends while it is looked at is no process of a container.
func TestEnded(t *testing.T) {
	proc := t.TempDir()
	for _, dir := range []string{"self/ns", "7"} {
		if err := os.MkdirAll(filepath.Join(proc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("pid:[1]", filepath.Join(proc, "self/ns/pid")); err != nil {
		t.Fatal(err)
	}
	if p, there := (Hierarchy{proc: proc}).look("7"); there {
		t.Errorf("a process without namespaces is %+v", p)
	}
}

// TestUnitIn: a unit that a person or another service started is another one, and what is below a unit belongs to it.
func TestUnitIn(t *testing.T) {
	const unit = "updatectl-confirm.service"
	for cgroup, want := range map[string]string{
		"0::/system.slice/updatectl-confirm.service\n":                                   unit,
		"0::/system.slice/updatectl-confirm.service/judge\n":                             unit,
		"12:pids:/\n1:name=systemd:/system.slice/updatectl-confirm.service":              unit,
		"0::/machine.slice/lab/system.slice/updatectl-confirm.service\n":                 unit,
		"0::/system.slice/updatectl-confirm.service/payload/web.service\n":               unit,
		"0::/user.slice/user-0.slice/session-3.scope\n":                                  "session-3.scope",
		"0::/user.slice/user-7.slice/user@7.service/app.slice/updatectl-confirm.service": "user@7.service",
		"0::/system.slice/not-updatectl-confirm.service\n":                               "not-updatectl-confirm.service",
		"0::/system.slice/system-updatectl\\x2dconfirm.slice/x.service\n":                "x.service",
		"0::/system.slice/updatectl-confirm.service.d\n":                                 "",
		"0::/\n": "",
		"":       "",
	} {
		if got := UnitIn(cgroup); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
}
