//go:build lab

package integration

import (
	"strings"
	"testing"
)

// TestBootLandsOnTheHost: the boot loader knows the mutable host only, so that is where a boot of the kernel lands. From
// there the host goes on to the image it ran, with that root's /etc and by the policy of that /etc, also when the
// registry is away.
func TestBootLandsOnTheHost(t *testing.T) {
	s := newSite(t, "boot")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.host.Must(t, "sh", "-ec", `echo "since = image" >> /etc/lab/constant.conf
printf '[health]\ndeadline = "77s"\n' > /etc/updatectl/conf.d/10-since.toml 2>/dev/null ||
{ mkdir -p /etc/updatectl/conf.d; printf '[health]\ndeadline = "77s"\n' > /etc/updatectl/conf.d/10-since.toml; }`)

	land := func() {
		t.Helper()
		if _, err := s.host.FullReboot(t.Context(), "systemctl", "reboot"); err != nil {
			t.Fatal(err)
		}
		v := s.settled()
		if v.Booted.Root != "host" || v.Kernel.SoftReboots != 0 {
			t.Fatalf("after a boot of the kernel status is %+v", v)
		}
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "a boot of the kernel landed here") {
			t.Errorf("status does not say how the host got here:\n%s", text)
		}
		if text := s.updatectl(exitDone, "config", "show").Stdout; !strings.Contains(text, `deadline = "1m17s"`) {
			t.Errorf("the configuration is the host's old one:\n%s", text)
		}
	}
	back := func() {
		t.Helper()
		s.runs(s.roots["1"], "1")
		s.host.Must(t, "grep", "since = image", "/etc/lab/constant.conf")
	}

	land()
	s.switches("rollback")
	back()

	land()
	s.registry.Stop()
	s.refused(exitUnreachable, "not reachable", "try again when the source answers", "apply")
	s.switches("apply", "--unattended")
	back()
}
