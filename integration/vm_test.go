//go:build lab

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMJourney is the main job with a kernel of the host's own: the host switches to image 1, to image 2, which has
// another kernel, and back, while its kernel keeps running and keeps its modules.
func TestVMJourney(t *testing.T) {
	beside(t, lab.QEMU)
	s := newSiteOf(t, lab.Options{Name: "vmjourney", Kind: lab.QEMU})
	h := s.host
	kernel := h.Must(t, "uname", "-r")
	boot := h.Must(t, "cat", "/proc/sys/kernel/random/boot_id")
	h.Must(t, "sh", "-ec", "echo kept > /var/lib/of-the-host")
	runsOn := func(module string) {
		t.Helper()
		if got := h.Must(t, "uname", "-r"); got != kernel {
			t.Errorf("the kernel is %s, was %s", got, kernel)
		}
		if got := h.Must(t, "cat", "/proc/sys/kernel/random/boot_id"); got != boot {
			t.Error("that was a full reboot")
		}
		h.Must(t, "test", "!", "-e", "/sys/module/"+module)
		h.Must(t, "modprobe", module)
		h.Must(t, "test", "-e", "/sys/module/"+module)
		if got := h.Must(t, "cat", "/var/lib/of-the-host"); got != "kept" {
			t.Errorf("the data of the host is %q", got)
		}
	}

	s.switches("apply")
	s.runs(s.roots["1"], "1")
	runsOn("dummy")

	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	// The image has modules of another kernel only: what is loaded here was carried over.
	if out, err := exec.Command("ls", filepath.Join(s.tree("2"), "usr/lib/modules")).Output(); err != nil ||
		strings.TrimSpace(string(out)) == kernel {
		t.Fatalf("image 2 has the running kernel (%s, %v): this shows nothing", out, err)
	}
	runsOn("ip_vs")

	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	runsOn("xt_LED")
}
