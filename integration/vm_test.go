//go:build lab

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMJourney is the main job where the kernel can be seen: the host moves onto image 1, to image 2, which brings
// another kernel, and back, while its own kernel runs on and keeps its modules.
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
			t.Error("the kernel was booted again")
		}
		h.Must(t, "test", "!", "-e", "/sys/module/"+module)
		h.Must(t, "modprobe", module)
		h.Must(t, "test", "-e", "/sys/module/"+module)
		if got := h.Must(t, "cat", "/var/lib/of-the-host"); got != "kept" {
			t.Errorf("the state of the host is %q", got)
		}
	}

	s.switches("apply")
	s.runs(s.roots["1"], "1")
	runsOn("dummy")

	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	// The image's own modules are those of another kernel: what is loaded here has come along with the running one.
	if out, err := exec.Command("ls", filepath.Join(s.tree("2"), "usr/lib/modules")).Output(); err != nil || strings.TrimSpace(string(out)) == kernel {
		t.Fatalf("image 2 has the kernel that runs (%s, %v): this shows nothing", out, err)
	}
	runsOn("ip_vs")

	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	runsOn("xt_LED")
}
