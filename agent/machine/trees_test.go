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
)

// TestWhatIsMountedOnEtc: a file that something is mounted on comes along as it is on the disk. It used to be left out,
// so that a host lost its name.
func TestWhatIsMountedOnEtc(t *testing.T) {
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
	dst := filepath.Join(dir, "dst")
	var report etc.Report
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
		if err != nil {
			return
		}
		change := EtcChange{Current: current, Adopt: []string{"hostname", "ssh"}}
		if report, err = (hostTrees{}).PlanEtc(change); err == nil {
			_, err = (hostTrees{}).MergeEtc(change, dst)
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
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
