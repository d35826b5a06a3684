//go:build lab && endurance

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab"
)

// lateUnit makes the device of a state path appear a while after the start of userspace, as a slow controller or a
// server does.
const lateUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'sleep 10; rm -f /dev/lab-late; mknod /dev/lab-late b %d %d; \
	ln -sf /dev/lab-late /run/lab-late'
`

// lateMount makes the mount wait for that, and lateConfig takes the unit into the images, where it is late, too.
const (
	lateMount  = "[Unit]\nWants=lab-late.service\nAfter=lab-late.service\n"
	lateConfig = "[state]\nadopt = [\"systemd/system/lab-late.service\"]\n"
)

// neverUnit stands for a device that does not appear.
const neverUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sleep infinity
TimeoutStartSec=20s
`

// late is a host with a state path on a disk of its own, which is there late.
type late struct {
	*site
	path string
}

func newLate(t *testing.T, path string) *late {
	t.Helper()
	c := &late{site: newPublisher(t), path: path}
	c.boot(lab.Options{Name: "late" + strings.Trim(path, "/"), Customise: c.furnish}, nil)
	c.publish("1", "os/server:stable")
	c.settlesAtOnce()
	c.host.Must(t, "sh", "-ec", "echo kept >"+path+"/mark")
	c.intact("on the host root")
	return c
}

// furnish moves the state path to a disk, which the enclosure holds: its number stays the same while the test runs.
func (c *late) furnish(root string) error {
	held := filepath.Join(lab.RunDir(), "late"+strings.Trim(c.path, "/"))
	const script = `root=$0 path=$1 held=$2
mkdir -p "$held"
truncate -s 6G "$held.img"
mke2fs -q -F -t ext4 -O verity -m 0 -d "$root$path" "$held.img"
find "$root$path" -mindepth 1 -delete
mount -o loop "$held.img" "$held"`
	if out, err := exec.Command("sh", "-ec", script, root, c.path, held).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot move %s to a disk: %w\n%s", c.path, err, out)
	}
	c.Cleanup(func() {
		_ = unix.Unmount(held, unix.MNT_DETACH)
		_ = os.Remove(held + ".img")
	})
	var st unix.Stat_t
	if err := unix.Stat(held, &st); err != nil {
		return err
	}
	unit := fmt.Sprintf(lateUnit, unix.Major(st.Dev), unix.Minor(st.Dev))
	mountUnit := strings.Trim(c.path, "/") + ".mount"
	fstab, err := os.OpenFile(filepath.Join(root, "etc/fstab"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// In a container, systemd leaves out lines of fstab whose source is below /dev.
	_, err = fmt.Fprintf(fstab, "/run/lab-late %s ext4 nofail 0 2\n", c.path)
	return errors.Join(err, fstab.Close(), writeTexts(root, map[string]string{
		"etc/systemd/system/lab-late.service":                 unit,
		"etc/systemd/system/" + mountUnit + ".d/10-late.conf": lateMount,
		"etc/updatectl/conf.d/20-late.toml":                   lateConfig,
	}))
}

// intact expects the state to be mounted from its disk.
func (c *late) intact(when string) {
	c.Helper()
	r := c.host.Sh(c.Context(), "findmnt -no SOURCE "+c.path+"; cat "+c.path+"/mark")
	if !strings.HasPrefix(r.Stdout, "/dev/lab-late") && !strings.HasPrefix(r.Stdout, "/dev/loop") ||
		!strings.HasSuffix(r.Stdout, "\nkept\n") {
		c.Errorf("%s, %s is %s", when, c.path, r)
	}
}

// TestLateState: a host whose state is on a disk that is late resumes its root after a full reboot, switches and rolls
// back, each time with its state.
func TestLateState(t *testing.T) {
	for _, path := range []string{"/var", "/home"} {
		t.Run(strings.Trim(path, "/"), func(t *testing.T) {
			beside(t, lab.Nspawn)
			c := newLate(t, path)
			c.switches("apply")
			c.runs(c.roots["1"], "1")
			c.intact("in the first image")
			if v := c.boots("systemctl", "reboot"); v.Booted.Root != c.roots["1"] {
				c.Errorf("after a full reboot, status is %+v", v)
			}
			c.runs(c.roots["1"], "1")
			c.intact("after a full reboot")
			c.publish("2", "os/server:stable")
			c.switches("apply")
			c.runs(c.roots["2"], "2")
			c.intact("in the second image")
			c.switches("rollback", "host")
			c.runs("host", "host")
			c.intact("back on the host root")
		})
	}
}

// TestStateNeverComes: a full reboot ends on the host root if the disk with the state does not appear. No command takes
// that for a new host, and when the disk is there, the host continues with its root.
func TestStateNeverComes(t *testing.T) {
	beside(t, lab.Nspawn)
	c := newLate(t, "/var")
	c.switches("apply")
	c.runs(c.roots["1"], "1")
	unit := filepath.Join(c.host.Disk(), "etc/systemd/system/lab-late.service")
	appears, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, []byte(neverUnit), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.host.FullReboot(t.Context(), "systemctl", "reboot"); err != nil {
		t.Fatal(err)
	}
	if got := c.host.Must(t, "cat", "/usr/share/lab/version"); got != "host" {
		t.Errorf("without its state, the host runs %s", got)
	}
	const reason = "var.mount should mount the file system of /var/lib/updatectl, and is not active"
	for _, command := range []string{"status", "apply", "gc", "confirm"} {
		c.refused(exitError, reason, "systemctl status", command)
	}
	c.host.Must(t, "test", "!", "-e", "/var/lib/updatectl")

	if err := os.WriteFile(unit, appears, 0o644); err != nil {
		t.Fatal(err)
	}
	c.host.Must(t, "sh", "-ec", "systemctl daemon-reload; systemctl stop lab-late.service; systemctl start var.mount")
	c.intact("when the disk is there")
	c.switches("apply")
	c.runs(c.roots["1"], "1")
	c.intact("in the first image again")
}
