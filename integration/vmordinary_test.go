//go:build lab && vm

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Volumes) }

// furnishVolumes adds to the fstab of a host with logical volumes what ordinary servers have besides.
const furnishVolumes = `
/swap.img none swap sw 0 0
/dev/disk/by-label/absent /mnt/absent ext4 nofail,x-systemd.device-timeout=5s 0 2
/opt/lazy /srv/lazy none bind,x-systemd.automount 0 0
`

// TestVMOrdinary: a host with /, /var and /home on logical volumes, a swap file, a disk that is absent and an automount
// runs an image without LVM and one with it. In each, events of the disks, a full reboot and the way back to the host
// root leave the state mounted from where it was.
func TestVMOrdinary(t *testing.T) {
	beside(t, lab.QEMU)
	c := newVolumesCase(t)
	for _, image := range []string{"1", "volumes"} {
		c.publish(image, "os/server:stable")
		c.visit(image)
	}
	for _, image := range []string{"volumes", "1"} {
		c.switches("rollback", c.roots[image])
		c.runs(c.roots[image], image)
		c.fullReboot(image)
	}
	c.switches("rollback", "host")
	c.runs("host", "host")
	c.intact("at the end")
	c.fullReboot("host")
}

// volumesCase is a host on logical volumes.
type volumesCase struct {
	*site
	state string // what look says on the host root
}

func newVolumesCase(t *testing.T) *volumesCase {
	t.Helper()
	c := &volumesCase{site: newPublisher(t)}
	c.publish("1", "os/server:stable")
	c.publish("volumes", "os/volumes:stable")
	c.boot(lab.Options{
		Name: "vmvolumes", Kind: lab.QEMU, Tree: c.tree("volumes"), Volumes: true, Customise: furnishVolumesHost,
	}, func(root string) error {
		return c.stageAhead(root, "os/server:stable", "os/volumes:stable")
	})
	c.host.Must(t, "sh", "-ec", "echo of-home >/home/file; echo of-root >/root/file; echo of-srv >/srv/file")
	if got := c.host.Must(t, "sh", "-c", "swapon --noheadings --show=NAME"); got != "/swap.img" {
		t.Errorf("the host swaps to %q", got)
	}
	c.state = c.look()
	return c
}

// An emulated machine on busy processors takes longer than any real one to merge /etc and to stop.
const (
	slowConfig = "[switch]\nshutdown-deadline = \"15m\"\n\n[health]\ndeadline = \"20m\"\n"
	slowArm    = "[Service]\nTimeoutStopSec=10min\n"
)

// patiently gives a host the deadlines of such a machine.
func patiently(root string) error {
	return writeTexts(root, map[string]string{
		"etc/updatectl/conf.d/10-slow.toml":                    slowConfig,
		"etc/systemd/system/updatectl-arm.service.d/slow.conf": slowArm,
	})
}

// furnishVolumesHost changes the tree of a host before its file systems move to volumes.
func furnishVolumesHost(root string) error {
	for _, dir := range []string{"opt/lazy", "srv/lazy", "mnt/absent"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(patiently(root), writeTexts(root, map[string]string{"opt/lazy/file": "lazy\n"})); err != nil {
		return err
	}
	fstab, err := os.OpenFile(filepath.Join(root, "etc/fstab"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer fstab.Close()
	if _, err := fstab.WriteString(furnishVolumes); err != nil {
		return err
	}
	return lab.MakeSwap(filepath.Join(root, "swap.img"))
}

// look returns where the state is mounted from, and what is in it.
func (c *volumesCase) look() string {
	c.Helper()
	return c.host.Must(c.T, "sh", "-c", `for dir in /home /root /srv /var; do
	stat -c "%n %d %i" $dir
done
cat /home/file /root/file /srv/file
ls /dev/mapper /dev/lab
systemctl is-active home.mount var.mount srv-lazy.automount local-fs.target`)
}

// intact expects the state to be where it was on the host root, and no unit to have failed.
func (c *volumesCase) intact(when string) {
	c.Helper()
	if got := c.look(); got != c.state {
		c.Errorf("%s, the state is\n%s\nwant\n%s", when, got, c.state)
	}
	if failed, err := c.host.FailedUnits(c.Context()); err != nil || len(failed) != 0 {
		c.Errorf("%s, these units have failed: %v (%v)", when, failed, err)
	}
}

// events are what tune2fs(8), resize2fs(8) and scripts of packages cause, too. systemd stops mounts a moment later, if
// it does.
const events = `for action in change add; do
	udevadm trigger --action=$action -s block; udevadm settle; sleep 10
done`

// visit goes to an image and back to the host root, with events of the disks in both.
func (c *volumesCase) visit(image string) {
	c.Helper()
	plan := c.updatectl(exitAvailable, "plan").Stdout
	if named, want := strings.Contains(plan, "lvm2"), image == "1"; named != want {
		c.Errorf("that the plan for image %s names lvm2 is %v, want %v:\n%s", image, named, want, plan)
	}
	c.switches("apply")
	c.runs(c.roots[image], image)
	c.intact("in image " + image)
	if r := c.host.Sh(c.Context(), "findmnt -no SOURCE /.updatectl/host; cat /srv/lazy/file"); r.Stdout !=
		"/dev/mapper/lab-root\nlazy\n" {
		c.Errorf("what lies on the host root: %s", r)
	}
	c.host.Must(c.T, "sh", "-c", events)
	c.intact("after events of the disks in image " + image)
	c.switches("rollback", "host")
	c.runs("host", "host")
	c.intact("back from image " + image)
	c.host.Must(c.T, "sh", "-c", events)
	c.intact("after events of the disks on the host root")
	if v := c.status(); v.Phase != "good" || v.Bad["host"].Reason != "" {
		c.Errorf("back from image %s, status is %+v", image, v)
	}
}

// fullReboot reboots the host, which comes back to a root.
func (c *volumesCase) fullReboot(version string) {
	c.Helper()
	root := version
	if version != "host" {
		root = c.roots[version]
	}
	if v := c.boots("systemctl", "reboot"); v.Booted.Root != root || v.Phase != "good" {
		c.Errorf("after a full reboot, want %s, status is %+v", root, v)
	}
	now := c.look()
	if strings.Count(now, "\n") != strings.Count(c.state, "\n") || !strings.Contains(now, "of-home\nof-root\nof-srv\n") {
		c.Errorf("after a full reboot, the state is\n%s\nwant\n%s", now, c.state)
	}
	c.state = now // the numbers of devices may be others
	c.intact("after a full reboot")
}
