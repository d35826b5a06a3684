//go:build lab

package assembly

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestAutomountIsNotTriggered: PID 1 answers no automount while it shuts down. The new root has its own.
// TestVMJourney runs this in its machine: the kernel that a container or a builder has may lack automounts.
func TestAutomountIsNotTriggered(t *testing.T) {
	state := testtree.Make(t, "var/lazy/", "home/")
	home, lazy := filepath.Join(state, "home"), filepath.Join(state, "var/lazy")
	for name, c := range map[string]struct {
		fstab, automounts []string
		want              string
	}{
		"in fstab":    {[]string{home, lazy}, []string{home, lazy}, ""},
		"not on use":  {[]string{home}, nil, ""},
		"not in root": {nil, nil, "add a line for it to /etc/fstab"},
	} {
		t.Run(name, func(t *testing.T) {
			n := testRoot(t, home[1:]+"/", state[1:]+"/var/")
			n.Persist, n.HostMount = []string{home, state + "/var"}, filepath.Join(state, "var/host")
			n.Fstab, n.Automounts = c.fstab, c.automounts
			inOwnNamespace(t, func() {
				var auto automounts
				err := errors.Join(auto.mount(home), auto.mount(lazy), os.MkdirAll(n.HostMount, 0o755))
				if err != nil {
					t.Error(err)
					return
				}
				var stay []string
				var merr error
				image := testtree.Make(t)
				if gerr := inGroupOfItsOwn(func() {
					stay, merr = n.Mounts(image)
					err = errors.Join(mount.MakeWritable(home), Arm(n))
				}); gerr != nil {
					t.Error(gerr)
				}
				if n := auto.triggered.Load(); n != 0 {
					t.Errorf("automounts were triggered %d times", n)
				}
				if c.want != "" {
					if err == nil || merr == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("Arm = %v, Mounts = %v; want %q", err, merr, c.want)
					}
					return
				}
				if err != nil || merr != nil || slices.Contains(stay, home) {
					t.Errorf("Arm = %v, Mounts = %q, %v", err, stay, merr)
				}
				for _, p := range []string{home, lazy} {
					if mounted, err := mount.IsMountPoint(filepath.Join(switcher.NextRoot, p)); err != nil || mounted {
						t.Errorf("%s is mounted in the new root: %v, %v", p, mounted, err)
					}
				}
			})
		})
	}
}

// automounts are mounted, and answer with an error, as systemd does while it shuts down.
type automounts struct{ triggered atomic.Int32 }

// mount mounts one at a directory. Nothing triggers it that is done by this process group, see inGroupOfItsOwn.
func (a *automounts) mount(at string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	options := fmt.Sprintf("fd=%d,pgrp=%d,minproto=5,maxproto=5,direct", w.Fd(), unix.Getpgrp())
	if err := unix.Mount("systemd-1", at, "autofs", 0, options); err != nil {
		return err
	}
	control, err := os.Open(at)
	if err != nil {
		return err
	}
	go func() {
		defer control.Close()
		defer r.Close()
		packet := make([]byte, 512)
		for {
			if _, err := r.Read(packet); err != nil {
				return
			}
			a.triggered.Add(1)
			const fail = 0x9361 // AUTOFS_IOC_FAIL, with the token of the request
			unix.IoctlSetInt(int(control.Fd()), fail, int(binary.NativeEndian.Uint32(packet[8:])))
		}
	}()
	return nil
}

// inGroupOfItsOwn calls do while this process is in another process group.
func inGroupOfItsOwn(do func()) error {
	before := unix.Getpgrp()
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := other.Start(); err != nil {
		return err
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	if err := unix.Setpgid(0, other.Process.Pid); err != nil {
		return err
	}
	do()
	return unix.Setpgid(0, before)
}
