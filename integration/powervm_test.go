//go:build lab && (vm || power)

package integration

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// recordText is the start of the record on the disk.
const recordText = "{\n  \"schema\": \"updatectl.record/"

func TestVMPowerCut(t *testing.T) { losesWhatWasNotFlushed(t, lab.QEMU) }

// TestVMPowerLost cuts the power of a machine at work: when an image is staged, when the reboot is requested, and when
// the host is in the new root.
func TestVMPowerLost(t *testing.T) {
	beside(t, lab.QEMU)
	s := newSiteOf(t, lab.Options{Name: "vmlost", Kind: lab.QEMU, Logged: true})
	h := s.host
	for _, phase := range []string{"staged", "armed", "trying"} {
		l, err := h.Writes()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan lab.Result, 1)
		go func() { ended <- h.Run(t.Context(), "updatectl", "apply") }()
		if _, err := h.AwaitWrite(t.Context(), len(l.Writes), recordText+"v1\",\n  \"phase\": \""+phase+"\"",
			5*h.Patience()); err != nil {
			t.Fatalf("%s is not recorded: %v\n%s", phase, err, h.Console())
		}
		time.Sleep(time.Second) // at most as long as it takes to be on the disk
		if _, err := h.CutPower(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-ended
		if v := s.settled(); v.Booted.Root != "host" || v.Good[0].Root != "host" {
			t.Fatalf("cut when %s, status is %+v", phase, v)
		}
		s.sound()
		h.Must(t, "test", "!", "-e", "/run/updatectl/armed.json")
	}
	s.switches("apply")
	s.runs(s.roots["1"], "1")
}
