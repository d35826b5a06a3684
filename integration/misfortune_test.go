//go:build lab && vm

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// clockJump is a service that sets the clock when services stop: in the middle of a switch.
const clockJump = `[Unit]
Description=Set the clock at shutdown
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'date --set="$(cat /run/jump)"'
[Install]
WantedBy=multi-user.target
`

// TestVMMisfortunes shows what can happen only to a machine: it has a clock of its own, and memory that can run out.
func TestVMMisfortunes(t *testing.T) {
	beside(t, lab.QEMU)
	s := newSiteOf(t, lab.Options{Name: "vmbad", Kind: lab.QEMU})
	h := s.host
	t.Run("the kernel kills it when memory runs out", func(t *testing.T) {
		s := s.in(t)
		killed := 0
		for _, limit := range []string{"4M", "8M", "16M"} {
			r := h.Run(t.Context(), "systemd-run", "--wait", "--pipe", "--collect", "--property=MemoryMax="+limit,
				"--property=MemorySwapMax=0", "updatectl", "stage")
			if strings.Contains(r.Stderr, "result: oom-kill") {
				killed++
			} else if r.Code != exitAvailable {
				t.Errorf("with %s: %s", limit, r)
			}
			s.sound()
		}
		if killed == 0 {
			t.Error("memory always sufficed: this shows nothing")
		}
		s.updatectl(exitAvailable, "stage")
		s.sound()
	})
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	if err := h.WriteFile("/etc/systemd/system/jump.service", clockJump, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "systemctl", "enable", "--now", "jump.service")
	jump := func(t *testing.T, to string, args ...string) {
		t.Helper()
		h.Must(t, "sh", "-ec", "echo '"+to+"' > /run/jump; systemctl is-active jump.service")
		s.in(t).switches(args...)
		if got := h.Must(t, "date", "+%Y"); got != to[:4] {
			t.Errorf("it is %s, want %s: the clock did not jump", got, to[:4])
		}
	}
	// Not further: systemd corrects a clock that is years before or after its own build.
	t.Run("the clock jumps ahead", func(t *testing.T) {
		s := s.in(t)
		s.publish("2", "os/server:stable")
		jump(t, "2034-01-01 12:00", "apply")
		s.runs(s.roots["2"], "2")
	})
	t.Run("the clock jumps back", func(t *testing.T) {
		jump(t, "2027-01-01 12:00", "rollback")
		s.in(t).runs(s.roots["1"], "1")
	})
}
