package machine

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// mountedEtc calls do with an /etc on which something is mounted: a file on hostname, a file system on ssh. It is in a
// mount namespace of its own.
func mountedEtc(t *testing.T, do func(current string) error) {
	t.Helper()
	dir := t.TempDir()
	current, over := filepath.Join(dir, "etc"), filepath.Join(dir, "over")
	err := os.MkdirAll(current+"/ssh", 0o755)
	for name, text := range map[string]string{
		current + "/passwd": "root:x:0:0::/root:/bin/sh\n", current + "/group": "root:x:0:\n",
		current + "/hostname": "server\n", current + "/ssh/key": "k", over: "container\n",
	} {
		err = errors.Join(err, os.WriteFile(name, []byte(text), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its mounts
		err = errors.Join(
			unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(over, current+"/hostname", "", unix.MS_BIND, ""),
			unix.Mount("tmpfs", current+"/ssh", "tmpfs", 0, ""),
		)
		if err == nil {
			err = do(current)
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhatIsMountedOnEtc: a file that something is mounted on comes along as it is on the disk. It used to be left out,
// so that a host lost its name.
func TestWhatIsMountedOnEtc(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "dst")
	var report etc.Report
	mountedEtc(t, func(current string) (err error) {
		change := EtcChange{Current: current, Adopt: []string{"hostname", "ssh"}}
		if report, err = (hostTrees{}).PlanEtc(change); err == nil {
			_, err = (hostTrees{}).MergeEtc(change, dst, false)
		}
		return err
	})
	for name, want := range map[string]string{"hostname": "server\n", "ssh/key": "k"} {
		if got, err := os.ReadFile(filepath.Join(dst, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	notes := strings.Join(report.Notes, "\n")
	for _, name := range []string{"hostname", "ssh"} {
		if !slices.Contains(report.Notes, name+": something is mounted here; what lies below it counts") {
			t.Errorf("%s is not named in %s", name, notes)
		}
	}
}

// TestWhatIsMountedOnEtcWithoutRights: a process in a container may not look below a mount. What is mounted there is
// named once, with what becomes of it. It used to be named twice, as what counts and as what does not.
func TestWhatIsMountedOnEtcWithoutRights(t *testing.T) {
	var report etc.Report
	mountedEtc(t, func(current string) (err error) {
		if err := dropRight(unix.CAP_SYS_ADMIN); err != nil {
			return err
		}
		report, err = (hostTrees{}).PlanEtc(EtcChange{Current: current, Adopt: []string{"hostname", "ssh"}})
		return err
	})
	for _, name := range []string{"hostname", "ssh"} {
		var about []string
		for _, note := range report.Notes {
			if strings.HasPrefix(note, name+":") {
				about = append(about, note)
			}
		}
		want := name + ": something is mounted here; what it hides counts as unchanged"
		if !slices.Equal(about, []string{want}) {
			t.Errorf("notes %q, want %q", about, want)
		}
	}
}

// dropRight takes a capability from this thread.
func dropRight(capability uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	return unix.Capset(&header, &data[0])
}

// TestDifferencesBelowMounts: what a merge takes along is compared, not what is mounted on it. It used to count as
// unchanged.
func TestDifferencesBelowMounts(t *testing.T) {
	pristine := testtree.Files{"hostname": "localhost\n", "ssh/key": "k", "passwd": "root:x:0:0::/root:/bin/sh\n",
		"group": "root:x:0:\n"}.OnDisk(t, t.TempDir())
	var found []string
	mountedEtc(t, func(current string) error {
		list, err := diffEtc(pristine, current, nil)
		for _, d := range list {
			found = append(found, d.Path)
		}
		return err
	})
	if want := []string{"hostname"}; !slices.Equal(found, want) {
		t.Errorf("differences in %q, want %q", found, want)
	}
}
