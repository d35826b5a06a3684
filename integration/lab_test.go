//go:build lab

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestPlainSoftReboot tests the lab without the product: a host that soft-reboots into another tree does everything
// that the tests of the product check. It also shows what the product relies on in systemd.
func TestPlainSoftReboot(t *testing.T) {
	ctx := t.Context()
	h := lab.Start(t, lab.Options{Name: "plain"})
	if failed, err := h.FailedUnits(ctx); err != nil || len(failed) != 0 {
		t.Fatalf("the plain host has failed units %v (%v)", failed, err)
	}
	v2, err := lab.V2(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.CopyIn(ctx, v2, "/var/lib/v2"); err != nil {
		t.Fatal(err)
	}
	// Without its configuration, networkd would remove the addresses of the link when it starts again.
	h.Must(t, "cp", "-a", "/etc/systemd/network/10-lab.network", "/var/lib/v2/etc/systemd/network/")
	h.Must(t, "sh", "-ec", "cp -a /etc/ssh/ssh_host_* /var/lib/v2/etc/ssh/")
	h.Must(t, "touch", "/run/stamp")

	probe := h.NewProbe(t)
	before, err := h.Stamp(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// PID 1 switches to /run/nextroot if it is an OS tree, and keeps what is mounted there.
	h.Must(t, "sh", "-ec", "mkdir /run/nextroot; mount --bind /var/lib/v2 /run/nextroot")
	after, err := h.SoftReboot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after.BootID != before.BootID {
		t.Errorf("boot id was %s, is %s: that was no soft reboot", before.BootID, after.BootID)
	}
	if before.SoftReboots != 0 || after.SoftReboots != 1 {
		t.Errorf("SoftRebootsCount went from %d to %d, want 0 to 1", before.SoftReboots, after.SoftReboots)
	}
	for path, want := range map[string]string{
		"/usr/share/lab/version": "2", // what is mounted at /
		"/run/lab-identity":      "2", // whose units were started
	} {
		if got := h.Must(t, "cat", path); got != want {
			t.Errorf("%s says %q, want %q", path, got, want)
		}
	}
	h.Must(t, "test", "-e", "/run/stamp") // /run is the only file system that stays
	h.Must(t, "systemctl", "is-active", "--quiet", "memcached.service")
	if failed, err := h.FailedUnits(ctx); err != nil || len(failed) != 0 {
		t.Errorf("after the soft reboot there are failed units %v (%v)", failed, err)
	}
	answers, outages := probe.Answers(), probe.Outages()
	if last := answers[len(answers)-1].Text; !strings.HasSuffix(last, "version 2") {
		t.Errorf("the web server says %q, want version 2", last)
	}
	if len(outages) == 0 {
		t.Fatal("the probe saw no outage: it did not poll")
	}
	t.Logf("outages: %v", outages)
}
