//go:build lab && vm

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// enableVerity is FS_IOC_ENABLE_VERITY: version 1, sha256, blocks of 4 KiB, neither salt nor signature.
const enableVerity = `
import fcntl, os, struct
fcntl.ioctl(os.open("/var/tmp/sealed", os.O_RDONLY), 0x40806685, struct.pack("IIII112x", 1, 1, 4096, 0))
`

// TestVMPlainSoftReboot tests the lab's machine without the product, as TestPlainSoftReboot tests the container: it
// has the kernel of its own tree, a disk with fs-verity, a network, and commands that live as long as their userspace.
func TestVMPlainSoftReboot(t *testing.T) {
	beside(t, lab.QEMU)
	ctx := t.Context()
	v2, err := lab.V2(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h := lab.Start(t, lab.Options{Name: "vmplain", Kind: lab.QEMU, Customise: func(root string) error {
		next := filepath.Join(root, "var/lib/v2")
		if out, err := exec.CommandContext(ctx, "cp", "-a", v2, next).CombinedOutput(); err != nil {
			t.Logf("%s", out)
			return err
		}
		// What makes the tree this host's, and avoids a first boot, which takes minutes here.
		return exec.CommandContext(ctx, "sh", "-ec", `cd "$0"
cp -a etc/systemd/network/10-lab.network var/lib/v2/etc/systemd/network/
cp -a etc/ssh/ssh_host_* var/lib/v2/etc/ssh/
cp -a etc/machine-id var/lib/v2/etc/
touch var/lib/v2/etc/.updated var/lib/v2/var/.updated`, root).Run()
	}})
	if failed, err := h.FailedUnits(ctx); err != nil || len(failed) != 0 {
		t.Fatalf("the plain machine has failed units %v (%v)", failed, err)
	}
	kernel := h.Must(t, "uname", "-r")
	if h.Must(t, "ls", "/usr/lib/modules") != kernel {
		t.Errorf("%s runs, which is not the kernel of the tree", kernel)
	}
	h.Must(t, "sh", "-ec", "echo text > /var/tmp/sealed")
	h.Must(t, "python3", "-c", enableVerity)
	if r := h.Sh(ctx, "echo more >> /var/tmp/sealed"); r.Code == 0 {
		t.Error("a file with fs-verity can be written: the disk does not have the feature")
	}
	if r := h.Run(ctx, "sh", "-c", "echo out; echo err >&2; kill -TERM $$"); r.Stdout != "out\n" ||
		r.Stderr != "err\n" || r.Code != 128+15 {
		t.Errorf("a command that ends itself: %s", r)
	}
	const large = 3 << 20 // more than all buffers in between
	if r := h.RunInput(ctx, strings.NewReader(strings.Repeat("x", large)), "cat"); len(r.Stdout) != large ||
		r.Code != 0 {
		t.Errorf("cat returned %d bytes, want %d; %d, %s", len(r.Stdout), large, r.Code, r.Stderr)
	}
	if err := h.WriteFile("/run/stamp/file", "text", 0o640); err != nil {
		t.Error(err)
	}
	// The product's roots share /var with the host root; here, what runs the commands has to be copied.
	h.Must(t, "sh", "-ec",
		"cp -a /var/lib/lab /var/lib/v2/var/lib/; mkdir -p /run/nextroot; mount --bind /var/lib/v2 /run/nextroot")

	killed := make(chan lab.Result)
	go func() { killed <- h.Run(ctx, "sleep", "infinity") }()
	before, err := h.Stamp(ctx)
	if err != nil {
		t.Fatal(err)
	}
	after, err := h.SoftReboot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after.BootID != before.BootID || after.SoftReboots != 1 {
		t.Errorf("%+v became %+v: that was not one soft reboot", before, after)
	}
	if r := <-killed; r.Code < 128 {
		t.Errorf("a command that the switch killed: %s", r)
	}
	if got := h.Must(t, "cat", "/usr/share/lab/version", "/run/lab-identity", "/run/stamp/file"); got != "2\n2\ntext" {
		t.Errorf("booted is %q", got)
	}
	if got := h.Must(t, "uname", "-r"); got != kernel {
		t.Errorf("the kernel is %s, was %s", got, kernel)
	}
	answers := h.NewProbe(t).Answers()
	if !strings.HasSuffix(answers[0].Text, "version 2") {
		t.Errorf("the web server says %q, want version 2", answers[0].Text)
	}

	h.Must(t, "ip", "link", "set", "dev", "lo", "down")
	h.Must(t, "sh", "-ec",
		"systemctl stop systemd-networkd; for d in /sys/class/net/en*; do ip link set ${d##*/} down; done")
	h.Must(t, "true") // commands need no network

	again, err := h.FullReboot(ctx, "systemctl", "--force", "--force", "reboot")
	if err != nil {
		t.Fatal(err)
	}
	if again.BootID == after.BootID || again.SoftReboots != 0 {
		t.Errorf("%+v became %+v: that was not a full reboot", after, again)
	}
	if got := h.Must(t, "cat", "/usr/share/lab/version"); got != "host" {
		t.Errorf("a full reboot lands on %q, want the host root", got)
	}

	// A kernel that panics and does not reboot is noticed, although QEMU keeps running.
	start := time.Now()
	if r := h.Sh(ctx, "echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger"); r.Code != -1 {
		t.Errorf("the command that crashes the kernel: %s", r)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v to notice the panic", took)
	}
	if _, err := h.AwaitReboot(ctx, time.Minute); err == nil ||
		!strings.Contains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("the host ended with %v", err)
	}
}
