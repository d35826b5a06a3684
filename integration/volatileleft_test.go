//go:build lab && endurance

package integration

import (
	"slices"
	"strings"
	"testing"
)

// TestVolatileLeft: the state is as it was also after a crash, after a full reboot, after the guard has left a root
// that hangs on its copy, and where the host root is the one to return to.
func TestVolatileLeft(t *testing.T) {
	s := newTrial(t, "volaleft")
	s.hastens("[health]\ndeadline = \"30s\"\n")
	h := s.host

	t.Log("a crash")
	s.switches("apply", "--volatile")
	s.runsOnCopy("2", s.roots["1"])
	before := s.state()
	h.Must(t, "sh", "-ec", migrate)
	h.Run(t.Context(), "systemctl", "reboot", "--force", "--force")
	if !h.Await(t, h.Patience(), func() bool { return h.Alive() != nil }) {
		t.Fatal("the host still runs")
	}
	s.sameState(before, "after the crash")
	if _, err := h.AwaitReboot(t.Context(), h.Patience()); err != nil {
		t.Fatal(err)
	}
	s.runs(s.roots["1"], "1")
	s.unguarded()
	s.intact()

	t.Log("a full reboot")
	s.switches("switch", "2", "--volatile")
	s.runsOnCopy("2", s.roots["1"])
	most := s.state(written...)
	h.Must(t, "sh", "-ec", migrate)
	if _, err := h.FullReboot(t.Context(), "systemctl", "reboot"); err != nil {
		t.Fatal(err)
	}
	s.runs(s.roots["1"], "1")
	s.unguarded()
	s.intact()
	s.sameState(most, "after the full reboot", written...)

	t.Log("a root that hangs")
	const spoil = "echo hung > /var/lib/app/schema; rm -r /srv/*; echo hung > /var/lib/disk/file"
	reference, hangs := s.variant("hangs", "2", slices.Concat(
		service("hangs.service", "[Unit]\nBefore=multi-user.target\n[Service]\nType=oneshot\n"+
			"ExecStart=/bin/sleep infinity\n"),
		service("migrates.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -ec '"+spoil+"'\n"),
	)...)
	h.Must(t, "sh", "-ec", "echo kept > /var/lib/disk/file")
	most = s.state(written...)
	start, err := h.Stamp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := h.Run(t.Context(), "updatectl", "apply", "--volatile", "--from", reference); r.Code != 0 && r.Code < 128 {
		t.Fatal(r)
	}
	if !h.Await(t, 5*h.Patience(), func() bool {
		now, err := h.Stamp(t.Context())
		return err == nil && now.SoftReboots >= start.SoftReboots+2
	}) {
		t.Fatalf("the host does not leave it\n%s", h.Console())
	}
	s.runs(s.roots["1"], "1")
	s.unguarded()
	s.intact()
	s.sameState(most, "after the guard", written...)
	if bad := s.status().Bad[hangs]; !strings.Contains(bad.Reason, "it was not good within") || s.onDisk() != "kept" {
		t.Errorf("the reason is %q; on a disk of its own is %q", bad.Reason, s.onDisk())
	}

	t.Log("from the host root")
	s.switches("rollback", "host")
	s.runs("host", "host")
	s.switches("switch", "1", "--volatile", "--retry")
	s.runsOnCopy("1", "host")
	before = s.state()
	h.Must(t, "sh", "-ec", migrate)
	s.sameState(before, "in the first image")
	s.switches("rollback")
	s.runs("host", "host")
	s.intact()
}
