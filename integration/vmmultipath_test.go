//go:build lab && vm

package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Multipath) }

// TestVMMultipath: a host with /home on a disk with two paths refuses an image without multipath-tools, and runs one
// with them: the disk keeps its name and both of its paths, whatever happens to them, there and back.
func TestVMMultipath(t *testing.T) {
	beside(t, lab.QEMU)
	c := newPathsCase(t)
	c.publish("1", "os/server:stable")
	const lacking = "the disks of this host use multipath, and the image lacks the tools (package multipath-tools)"
	c.refused(exitIncompatible, lacking, "", "apply")
	if plan := c.updatectl(exitIncompatible, "plan").Stdout; !strings.Contains(plan, lacking) {
		t.Errorf("the plan does not name the package:\n%s", plan)
	}

	c.publish("multipath", "os/server:stable")
	c.switches("apply")
	c.runs(c.roots["multipath"], "multipath")
	c.intact("in the image")
	c.host.Must(t, "sh", "-c", events)
	c.intact("after events of the disks in the image")
	c.losesPath()
	c.intact("after a path was lost and came back")
	if v := c.boots("systemctl", "reboot"); v.Booted.Root != c.roots["multipath"] || v.Phase != "good" {
		t.Errorf("after a full reboot, status is %+v", v)
	}
	c.intact("after a full reboot")
	c.switches("rollback", "host")
	c.runs("host", "host")
	c.intact("back on the host root")
	c.host.Must(t, "sh", "-c", events)
	c.intact("after events of the disks on the host root")
}

// pathsCase is a host with /home on a disk with two paths.
type pathsCase struct {
	*site
	state string // what look says on the host root
}

func newPathsCase(t *testing.T) *pathsCase {
	t.Helper()
	c := &pathsCase{site: newPublisher(t)}
	c.publish("1", "os/server:stable")
	c.publish("multipath", "os/multipath:stable")
	c.boot(lab.Options{
		Name: "vmpaths", Kind: lab.QEMU, Tree: c.tree("multipath"), Multipath: true,
		Customise: func(root string) error {
			return writeTexts(root, map[string]string{
				"etc/updatectl/conf.d/10-slow.toml":                    slowConfig,
				"etc/systemd/system/updatectl-arm.service.d/slow.conf": slowArm,
			})
		},
	}, func(root string) error { return c.stageAhead(root, "os/server:stable", "os/multipath:stable") })
	c.host.Must(t, "sh", "-ec", "echo of-home >/home/file")
	c.state = c.look()
	if !strings.HasPrefix(c.state, "/dev/mapper/mpatha\nof-home\nrunning active\nrunning active\nactive\n") {
		t.Fatalf("the host does not have /home on two paths:\n%s", c.state)
	}
	return c
}

// pathStates prints the state of each path: of the disk, and in the map.
const pathStates = `multipathd show paths raw format '%o %t' | sort`

// look returns where /home is mounted from, and what multipath-tools know of its disk.
func (c *pathsCase) look() string {
	c.Helper()
	return c.host.Must(c.T, "sh", "-c", "findmnt -no SOURCE /home; cat /home/file; "+pathStates+`
systemctl is-active multipathd.service home.mount
sha256sum /etc/multipath.conf /etc/multipath/bindings /etc/multipath/wwids`)
}

// intact expects all to be as it was on the host root, and no unit to have failed.
func (c *pathsCase) intact(when string) {
	c.Helper()
	if got := c.look(); got != c.state {
		c.Errorf("%s, the host has\n%s\nwant\n%s", when, got, c.state)
	}
	if failed, err := c.host.FailedUnits(c.Context()); err != nil || len(failed) != 0 {
		c.Errorf("%s, these units have failed: %v (%v)", when, failed, err)
	}
}

// losesPath takes a path away and gives it back: multipathd of the running root notices both.
func (c *pathsCase) losesPath() {
	c.Helper()
	path := c.host.Must(c.T, "sh", "-c", "multipathd show paths raw format %d | head -n 1")
	for _, step := range []struct{ state, want string }{{"offline", " failed"}, {"running", "running active"}} {
		c.host.Must(c.T, "sh", "-c", "echo "+step.state+" >/sys/block/"+path+"/device/state")
		if !c.host.Await(c.T, 5*time.Minute, func() bool {
			c.host.Must(c.T, "dd", "if=/dev/mapper/mpatha", "of=/dev/null", "bs=4096", "count=2", "iflag=direct")
			got := c.host.Must(c.T, "sh", "-c", "multipathd show paths raw format '%d %o %t' | grep -w "+path)
			return strings.HasSuffix(got, step.want)
		}) {
			c.Errorf("multipathd does not notice that %s is %s:\n%s", path, step.state,
				c.host.Must(c.T, "sh", "-c", pathStates))
		}
	}
}
