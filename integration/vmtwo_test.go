//go:build lab && vm

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMTwo switches two machines at once, as a rollout does: each boots the image and keeps its identity.
func TestVMTwo(t *testing.T) {
	beside(t, lab.QEMU)
	first := newSiteOf(t, lab.Options{Name: "vmone", Kind: lab.QEMU})
	second := *first
	second.boot(lab.Options{Name: "vmtwo", Kind: lab.QEMU}, nil)
	both := []*site{first, &second}
	var before []lab.BootStamp
	var ids []string
	for _, s := range both {
		stamp, err := s.host.Stamp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, stamp)
		ids = append(ids, s.host.Must(t, "cat", "/etc/machine-id"))
	}
	if ids[0] == ids[1] || before[0].BootID == before[1].BootID {
		t.Fatalf("these are not two hosts: %v, %+v", ids, before)
	}
	ended := make(chan lab.Result, len(both))
	for _, s := range both {
		go func() { ended <- s.host.Run(t.Context(), "updatectl", "apply") }()
	}
	for range both {
		if r := <-ended; r.Code != 0 && r.Code < 128 {
			t.Fatalf("updatectl apply: %s", r)
		}
	}
	for i, s := range both {
		if _, err := s.host.AwaitBoot(t.Context(), before[i]); err != nil {
			t.Fatal(err)
		}
		s.runs(s.roots["1"], "1")
		if got := s.host.Must(t, "cat", "/etc/machine-id"); got != ids[i] {
			t.Errorf("the machine id of %s was %s, is %s", s.host.Name, ids[i], got)
		}
		if got := s.host.Must(t, "hostname"); strings.TrimSpace(got) != s.host.Name {
			t.Errorf("host %s has the hostname %s", s.host.Name, got)
		}
	}
}
