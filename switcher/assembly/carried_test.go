package assembly

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
)

// TestEtcHasItsOwnFlags: scripts in /etc run although it lies on a hardened /var, which stays as it is.
func TestEtcHasItsOwnFlags(t *testing.T) {
	state := t.TempDir()
	n := testRoot(t, state[1:]+"/")
	n.Persist, n.HostMount, n.Etc = []string{state}, filepath.Join(state, "host"), filepath.Join(state, "etc")
	inOwnNamespace(t, func() {
		const hardened = unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV
		script := filepath.Join(n.Etc, "cron.daily")
		if err := errors.Join(
			unix.Mount("tmpfs", state, "tmpfs", hardened, ""), os.Mkdir(n.Etc, 0o755), os.Mkdir(n.HostMount, 0o755),
			os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755),
			Arm(n),
		); err != nil {
			t.Error(err)
			return
		}
		if out, err := exec.Command(filepath.Join(switcher.NextRoot, "etc/cron.daily")).CombinedOutput(); err != nil {
			t.Errorf("a script in /etc does not run: %v: %s", err, out)
		}
		for at, want := range map[string]int64{"etc": 0, state: unix.ST_NOEXEC | unix.ST_NOSUID | unix.ST_NODEV} {
			var st unix.Statfs_t
			err := unix.Statfs(filepath.Join(switcher.NextRoot, at), &st)
			if got := st.Flags & (unix.ST_NOEXEC | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_RDONLY); err != nil || got != want {
				t.Errorf("flags of %s are %#x, %v; want %#x", at, got, err, want)
			}
		}
	})
}
