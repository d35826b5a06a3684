//go:build lab && vm

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Objects) }

// TestVMObjects shows what no container can: after a soft reboot, AppArmor enforces the profiles of the root that runs,
// udev applies that root's rules to devices that were there before, and the services that these devices want are
// started. Swap on zram and a file system on a RAID array stay as they were, also in an image without mdadm.
func TestVMObjects(t *testing.T) {
	beside(t, lab.QEMU)
	c := &objectsCase{site: newPublisher(t)}
	one, oneRoot := c.variant("one", "objects",
		append(withoutMdadm(), confined("changing", "constant", "lab-former")...)...)
	two, twoRoot := c.variant("two", "objects", append(confined("constant", "changing", "lab-new"),
		aFile("usr/lib/udev/rules.d/90-lab.rules", wanting("lab.0", "lab-agent")),
		aFile("usr/lib/systemd/system/lab-agent.service", agentUnit))...)
	c.boot(lab.Options{
		Name: "vmobjects", Kind: lab.QEMU, Tree: c.tree("objects"), Customise: furnishObjectsHost,
	}, func(root string) error {
		return c.stageAhead(root, "os/one:stable", "os/two:stable")
	})
	c.host.Must(t, "sh", "-ec", makeArray)
	c.state = c.look()
	if !strings.HasPrefix(c.state, "/dev/zram0\nactive\nactive\nzram0\n") {
		t.Fatalf("the host does not swap to zram:\n%s", c.state)
	}
	if plan := c.updatectl(exitAvailable, "plan", "--from", one).Stdout; !strings.Contains(plan, "package mdadm") {
		t.Errorf("the plan does not say that the image lacks mdadm:\n%s", plan)
	}

	c.moves(oneRoot, "objects", "apply", "--from", one)
	c.enforces("changing")
	c.leaves(nil)
	c.moves(twoRoot, "objects", "apply", "--from", two)
	c.enforces("constant")
	c.leaves([]string{"lab-former"})
	if got := c.host.Must(t, "sh", "-c", "systemctl is-active lab-agent.service; cat /run/lab-agent.ran"); got !=
		"active\nadd" {
		t.Errorf("the rule of the image says for a device that was there before: %q", got)
	}
	c.moves(oneRoot, "objects", "rollback")
	c.enforces("changing")
	c.leaves([]string{"lab-new"})
	c.moves("host", "host", "rollback", "host")
	c.leaves([]string{"lab-confined", "lab-former", "lab-new"})
}

// objectsCase is a host with objects in its kernel.
type objectsCase struct {
	*site
	state string // what look says on the host root
}

// agentUnit is a service that a device wants, and that a soft reboot ends, like qemu-guest-agent.
const agentUnit = "[Service]\nExecStart=/usr/bin/sleep infinity\n"

// wanting returns udev's rule for a port of the machine: it wants a service, and a program notes the event.
func wanting(port, service string) string {
	return `SUBSYSTEM=="virtio-ports", ATTR{name}=="` + port + `", TAG+="systemd", ENV{SYSTEMD_WANTS}+="` + service +
		`.service", RUN+="/bin/sh -c 'echo $env{ACTION} >/run/` + service + `.ran'"` + "\n"
}

// confined returns a service whose profile lets it read one file in /etc/lab and not another, and one more profile.
// The service lists what it can read in /run/lab-read. The files of all versions have the same time, as in images that
// are built reproducibly.
func confined(readable, denied, more string) []layerEntry {
	return []layerEntry{
		aFile("etc/apparmor.d/lab-confined", "profile lab-confined {\n  file,\n  deny /etc/lab/"+denied+".conf r,\n}\n"),
		aFile("etc/apparmor.d/"+more, "profile "+more+" {\n  file,\n}\n"),
		aFile("usr/lib/systemd/system/lab-confined.service", `[Service]
Type=oneshot
RemainAfterExit=yes
AppArmorProfile=lab-confined
ExecStart=/bin/sh -c 'cd /etc/lab; for f in changing constant; do cat $$f.conf >/dev/null 2>&1 && echo $$f; done \
	>/run/lab-read; true'
`),
		aLink("usr/lib/systemd/system/multi-user.target.wants/lab-confined.service", "../lab-confined.service"),
	}
}

// withoutMdadm hides the files of mdadm that a root uses.
func withoutMdadm() []layerEntry {
	var entries []layerEntry
	for _, name := range []string{
		"usr/sbin/mdadm", "usr/sbin/mdmon", "usr/lib/systemd/system/mdmonitor.service",
		"usr/lib/udev/rules.d/01-md-raid-creating.rules", "usr/lib/udev/rules.d/63-md-raid-arrays.rules",
		"usr/lib/udev/rules.d/64-md-raid-assembly.rules", "usr/lib/udev/rules.d/69-md-clustered-confirm-device.rules",
	} {
		entries = append(entries, gone(name))
	}
	return entries
}

// makeArray makes an array of two disks in memory, and copies a file system for /srv onto it: the host has no mke2fs.
const makeArray = `modprobe brd rd_nr=2 rd_size=32768
mdadm --create /dev/md/data --run --assume-clean --level=1 --metadata=1.2 --raid-devices=2 /dev/ram0 /dev/ram1
mdadm --detail --scan >>/etc/mdadm/mdadm.conf
udevadm settle
dd if=/var/lib/lab/srv.img of=/dev/md/data bs=1M status=none
udevadm trigger --settle /dev/md/data
echo '/dev/md/data /srv ext4 nofail 0 0' >>/etc/fstab
systemctl daemon-reload
systemctl start srv.mount
echo of-srv >/srv/file`

// furnishObjectsHost changes the tree of a host before it boots: a udev rule of this site wants a service, and both are
// adopted.
func furnishObjectsHost(root string) error {
	disk := filepath.Join(root, "var/lib/lab/srv.img")
	if err := os.MkdirAll(filepath.Dir(disk), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", disk, "24M").CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a file system for /srv: %w\n%s", err, out)
	}
	return writeTexts(root, map[string]string{
		"etc/updatectl/conf.d/10-slow.toml":                    slowConfig,
		"etc/systemd/system/updatectl-arm.service.d/slow.conf": slowArm,
		"etc/updatectl/conf.d/20-site.toml": "[state]\n" +
			"adopt = [\"udev/rules.d/90-site.rules\", \"systemd/system/site-agent.service\"]\n",
		"etc/udev/rules.d/90-site.rules":        wanting("lab.1", "site-agent"),
		"etc/systemd/system/site-agent.service": agentUnit,
	})
}

// look returns what the kernel has of the host's, whichever root runs.
func (c *objectsCase) look() string {
	c.Helper()
	return c.host.Must(c.T, "sh", "-c", `swapon --noheadings --show=NAME
systemctl is-active dev-zram0.swap systemd-zram-setup@zram0.service
ls /sys/block | grep zram
stat -c "%n %d %i" /srv
cat /srv/file
readlink -f /dev/md/data
systemctl is-active srv.mount site-agent.service
cat /run/site-agent.ran`)
}

// moves switches to a root, in which all is as it was on the host root, also after events of the disks.
func (c *objectsCase) moves(root, version string, args ...string) {
	c.Helper()
	c.host.Must(c.T, "rm", "-f", "/run/site-agent.ran", "/run/lab-agent.ran", "/run/lab-read")
	c.switches(args...)
	c.runs(root, version)
	for _, when := range []string{"", "events of the disks and "} {
		if got := c.look(); got != c.state {
			c.Errorf("after %s%v, the kernel has\n%s\nwant\n%s", when, args, got, c.state)
		}
		if when == "" {
			c.host.Must(c.T, "sh", "-c", events)
		}
	}
}

// enforces expects the kernel to enforce a profile that lets a service read one file.
func (c *objectsCase) enforces(readable string) {
	c.Helper()
	if got := c.host.Must(c.T, "cat", "/run/lab-read"); got != readable {
		c.Errorf("the confined service read %q at its start, want %q", got, readable)
	}
	got := c.host.Must(c.T, "sh", "-c", "systemctl restart lab-confined.service; cat /run/lab-read")
	if got != readable {
		c.Errorf("the confined service reads %q, want %q", got, readable)
	}
}

// leaves expects the kernel to have profiles that the root does not have, and status to name them and no other.
func (c *objectsCase) leaves(former []string) {
	c.Helper()
	loaded := c.host.Must(c.T, "cat", "/sys/kernel/security/apparmor/profiles")
	for _, name := range former {
		if !strings.Contains(loaded, name+" (enforce)") {
			c.Errorf("%s is not loaded any more:\n%s", name, loaded)
		}
	}
	var named []string
	for _, p := range c.kernel().Profiles {
		named = append(named, p.Profile)
	}
	if !slices.Equal(named, former) {
		c.Errorf("status --kernel names the profiles %q, want %q; loaded are\n%s", named, former, loaded)
	}
}
