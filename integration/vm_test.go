//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMJourney is the main job with a kernel of the host's own: the host switches to image 1, to image 2, which has
// another kernel, and back, while its kernel keeps running and keeps its modules. Some of its state is mounted on first
// use, which the kernel below a container need not be able to do.
func TestVMJourney(t *testing.T) {
	beside(t, lab.QEMU)
	s := newPublisher(t)
	s.publish("1", "os/server:stable")
	s.publish("2", "os/two:stable")
	// Only image 1 is staged in the machine: unpacking an image takes minutes there.
	s.boot(lab.Options{Name: "vmjourney", Kind: lab.QEMU}, func(root string) error {
		return s.stageAhead(root, "os/two:stable")
	})
	h := s.host
	kernel := h.Must(t, "uname", "-r")
	boot := h.Must(t, "cat", "/proc/sys/kernel/random/boot_id")
	h.Must(t, "sh", "-ec", "echo kept > /var/lib/of-the-host")
	s.triggersNoAutomount()
	h.Must(t, "sh", "-ec", furnishAutomounts)
	s.updatectl(exitAvailable, "stage")
	plan := s.updatectl(exitAvailable, "plan").Stdout
	for _, named := range []string{"/srv/lazy is mounted on", "/home is mounted on"} {
		if !strings.Contains(plan, named) {
			t.Errorf("plan does not name %q:\n%s", named, plan)
		}
	}
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
		s.mountsOnFirstUse()
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

// stageAhead stages images on a host's tree before it boots, and pins them: in an emulated machine it would take
// minutes for each, and is not what the test shows.
func (s *site) stageAhead(root string, names ...string) error {
	updatectl := lab.Binary(s.T, "updatectl")
	for _, name := range names {
		out, err := exec.CommandContext(s.Context(), updatectl, "--root", root, "--output", "json", "stage", "--from",
			s.registry.Host+"/"+name).Output()
		var staged struct{ Root string }
		if jsonErr := json.Unmarshal(out, &staged); jsonErr != nil {
			return fmt.Errorf("cannot stage %s: %v, %w", name, err, jsonErr)
		}
		if out, err := exec.CommandContext(s.Context(), updatectl, "--root", root, "pin",
			staged.Root).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot pin %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
