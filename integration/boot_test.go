//go:build lab

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// boots runs a command that fully reboots the host, waits until it has settled, in whichever root, and returns the
// status.
func (s *site) boots(command ...string) status {
	s.Helper()
	if _, err := s.host.FullReboot(s.Context(), command...); err != nil {
		s.Fatal(err)
	}
	return s.settles()
}

// settles waits until the host has settled after a full reboot, in whichever root, and returns the status.
func (s *site) settles() status {
	s.Helper()
	const resumes = 3 * time.Second // until then, the host may still be in the root that it resumes from
	time.Sleep(resumes)
	s.upAgain()
	return s.settled()
}

// TestBootResumes: the boot loader knows only the host root, so a full reboot lands there. From there the host resumes
// the last good root, with that root's /etc, automatically and before services start.
func TestBootResumes(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "boot")
	s.settlesAtOnce()
	h := s.host
	one := s.roots["1"]
	s.switches("apply")
	s.runs(one, "1")
	h.Must(t, "sh", "-ec", `echo "since = image" >> /etc/lab/constant.conf; mkdir -p /etc/updatectl/conf.d
printf '[health]\ndeadline = "77s"\n' > /etc/updatectl/conf.d/10-since.toml`)
	onHost := func(t *testing.T, v status) {
		t.Helper()
		s := s.in(t)
		if v.Booted.Root != "host" || v.Phase == "trying" || v.Phase == "armed" {
			t.Fatalf("after a full reboot status is %+v", v)
		}
		s.unarmed()
	}
	resumed := func(t *testing.T) {
		t.Helper()
		s := s.in(t)
		s.runs(one, "1")
		h.Must(t, "grep", "since = image", "/etc/lab/constant.conf")
		s.unguarded()
	}

	t.Run("resumes", func(t *testing.T) {
		s := s.in(t)
		if v := s.boots("systemctl", "reboot"); v.Kernel.SoftReboots != 1 {
			t.Errorf("the host soft-rebooted %d times, want once", v.Kernel.SoftReboots)
		}
		resumed(t)
		if log := h.Must(t, "journalctl", "--boot", "--no-pager", "--output=cat", "--grep=lab host root|nginx",
			"--unit=nginx"); strings.Count(log, "Started nginx") > 1 {
			t.Errorf("services of the host root were started and stopped again:\n%s", log)
		}
	})
	t.Run("stays by the kernel command line", func(t *testing.T) {
		s := s.in(t)
		h.Cmdline = []string{"updatectl.resume=0"}
		v := s.boots("systemctl", "reboot")
		h.Cmdline = nil
		onHost(t, v)
		if v.Kernel.SoftReboots != 0 {
			t.Errorf("the host soft-rebooted %d times", v.Kernel.SoftReboots)
		}
		if v.Good[0].Root != one {
			t.Errorf("good are %+v, want %s first", v.Good, one)
		}
		if text := s.updatectl(exitDone, "config", "show").Stdout; !strings.Contains(text, `deadline = "1m17s"`) {
			t.Errorf("the configuration is the old one of the host root:\n%s", text)
		}
		t.Log("resumed by hand, and by the nightly run when it cannot fetch anything newer")
		s.switches("rollback")
		resumed(t)
		h.Cmdline = []string{"updatectl.resume=0"}
		onHost(t, s.boots("systemctl", "reboot"))
		if why := s.skipped(); !strings.Contains(why, "updatectl.resume=0") {
			t.Errorf("the nightly run stays because %q", why)
		}
		onHost(t, s.settled())
		h.Cmdline = []string{"systemd.mask=updatectl-resume.service"}
		onHost(t, s.boots("systemctl", "reboot"))
		h.Cmdline = nil
		s.registry.Stop()
		s.refused(exitUnreachable, "not reachable", "try again when the source answers", "apply")
		s.switches("apply", "--unattended")
		resumed(t)
		t.Log("a full reboot does not need the registry")
		s.boots("systemctl", "reboot")
		resumed(t)
	})
	t.Run("with a unit that has failed and a typo made since the root was good", func(t *testing.T) {
		h.Must(t, "sh", "-ec", `printf '[health]\ndeadlin = "1m"\n' > /etc/updatectl/conf.d/20-typo.toml
printf '[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n' \
	> /etc/systemd/system/tired.service
systemctl enable tired.service`)
		s := s.in(t)
		if v := s.boots("systemctl", "reboot"); v.Booted.Root != one || v.Phase != "good" {
			t.Fatalf("after a full reboot status is %+v", v)
		}
		if v := s.status(); !slices.Contains(v.Failed, "tired.service") {
			t.Errorf("failed units are %v", v.Failed)
		}
		s.refused(exitUsage, "health.deadlin", "", "apply")
		h.Must(t, "sh", "-ec", "systemctl disable tired.service; "+
			"rm /etc/systemd/system/tired.service /etc/updatectl/conf.d/20-typo.toml; systemctl daemon-reload; "+
			"systemctl reset-failed")
	})
	t.Run("with a full disk", func(t *testing.T) {
		h.Must(t, "sh", "-c", fillVar)
		s := s.in(t)
		if r := h.Run(t.Context(), "sh", "-c", "echo text > /var/lib/updatectl/more"); r.Code == 0 {
			t.Fatal("the disk is not full: this shows nothing")
		}
		if _, err := h.CutPower(t.Context()); err != nil { // services that cannot save their data do not stop
			t.Fatal(err)
		}
		s.settles()
		if got := h.Must(t, "cat", "/usr/share/lab/version", "/run/lab-identity"); got != "1\n1" {
			t.Fatalf("booted is %q\n%s", got, h.Console())
		}
		h.Must(t, "sh", "-ec", "rm -f /var/fill /var/fill2 /var/lib/updatectl/more; systemctl reset-failed; "+
			"systemctl restart updatectl-confirm")
		resumed(t)
	})
	t.Run("not healthy once", func(t *testing.T) {
		h.Must(t, "sh", "-ec", `mkdir -p /etc/updatectl/health.d/required.d; cd /etc/updatectl/health.d/required.d
printf '#!/bin/sh\n! test -e /var/lib/sick\n' > 10-sick; chmod 755 10-sick; touch /var/lib/sick
sed -i s/77s/20s/ /etc/updatectl/conf.d/10-since.toml`)
		s := s.in(t)
		v := s.boots("systemctl", "reboot")
		h.Await(t, 2*time.Minute, func() bool {
			if v.Kernel.SoftReboots < 2 {
				v = s.settles()
			}
			return v.Kernel.SoftReboots >= 2
		})
		onHost(t, v)
		if v.Good[0].Root != one || len(v.Bad) != 0 {
			t.Errorf("it is no longer the last good root: %+v", v)
		}
		h.Must(t, "rm", "/var/lib/sick")
		s.boots("systemctl", "reboot")
		resumed(t)
		h.Must(t, "sh", "-ec",
			"rm /etc/updatectl/health.d/required.d/10-sick; sed -i s/20s/77s/ /etc/updatectl/conf.d/10-since.toml")
	})
	t.Run("a resume that fails twice", func(t *testing.T) {
		s := s.in(t)
		dropIn := filepath.Join(h.Disk(), "etc/systemd/system/updatectl-arm.service.d/lab.conf")
		if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dropIn, []byte("[Service]\nExecStop=\nExecStop=/bin/false\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, softReboots := range []int{1, 1, 0} {
			v := s.boots("systemctl", "reboot")
			onHost(t, v)
			if v.Kernel.SoftReboots != softReboots {
				t.Errorf("the host soft-rebooted %d times, want %d", v.Kernel.SoftReboots, softReboots)
			}
		}
		if r := s.status().Resume; r == nil || r.Root != one || r.Attempts != 2 {
			t.Errorf("the host gave up on %+v, want two attempts to resume %s", r, one)
		}
		if err := os.RemoveAll(filepath.Dir(dropIn)); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "systemctl", "daemon-reload")
		h.Must(t, "systemctl", "reset-failed")
		s.switches("rollback")
		resumed(t)
		s.boots("systemctl", "reboot")
		resumed(t)
	})
}

// TestPowerCutWhileTrying: a root on trial is not resumed; after two power cuts it is bad.
func TestPowerCutWhileTrying(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "cut")
	s.settlesAtOnce()
	one := s.roots["1"]
	s.switches("apply")
	s.runs(one, "1")
	image, root := s.variant("hang", "2", hangs("wait.service", true)...)
	for attempt := 1; attempt <= 2; attempt++ {
		s.sends("2", "apply", "--from", image)
		if _, err := s.host.CutPower(t.Context()); err != nil {
			t.Fatal(err)
		}
		v := s.settles()
		s.runs(one, "1")
		if bad, isBad := v.Bad[root]; isBad != (attempt == 2) || isBad && !strings.Contains(bad.Reason, "2 times") {
			t.Errorf("after %d power cuts bad is %+v", attempt, v.Bad)
		}
	}
	s.refusedAsBad(root, "apply", "--from", image)
}
