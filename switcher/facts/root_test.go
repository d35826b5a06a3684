package facts

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
)

// TestLookWhileSwitching: a look at / during a switch never gives the root from before it with the mount from after it.
func TestLookWhileSwitching(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can mount; run the tests as root")
	}
	const inside = "UPDATECTL_TEST_MOUNTS"
	if os.Getenv(inside) == "" { // what is mounted at / goes with a process of its own
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLookWhileSwitching$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // which makes all mounts private
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const switches = 400
	done := make(chan error, 1)
	go func() {
		for n := range switches {
			if err := unix.Mount(fmt.Sprint(switcher.SourcePrefix, n), "/", "tmpfs", 0, "size=4k"); err != nil {
				done <- err
				return
			}
			time.Sleep(100 * time.Microsecond) // or everything is mounted before the second look
		}
		close(done)
	}()
	seen := map[Mounted]bool{}
	for under := true; under; {
		m, err := LookAtRoot()
		if err != nil {
			t.Fatal(err)
		}
		seen[m] = true
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			under = false
		default:
		}
	}
	if len(seen) < 3 {
		t.Errorf("the looks show only %v: nothing was mounted while they were taken", seen)
	}
	mounts, err := mountinfo.GetMounts(MountedAt("/"))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[int]string{}
	for _, m := range mounts {
		sources[m.ID] = m.Source
	}
	for m := range seen {
		if m.Root != switcher.HostRoot && sources[m.Mount] != switcher.SourcePrefix+m.Root {
			t.Errorf("a look shows the root %s at the mount of %s", m.Root, sources[m.Mount])
		}
	}
}
