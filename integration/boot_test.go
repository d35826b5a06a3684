//go:build lab

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// boots boots the kernel by a command and waits until the host has settled, wherever it goes on to.
func (s *site) boots(command ...string) status {
	s.Helper()
	if _, err := s.host.FullReboot(s.Context(), command...); err != nil {
		s.Fatal(err)
	}
	return s.settles()
}

// settles waits until the host has settled after a boot of the kernel, wherever it goes on to.
func (s *site) settles() status {
	s.Helper()
	const goesOn = 3 * time.Second // before that, the host may still be in the userspace that it leaves
	time.Sleep(goesOn)
	s.upAgain()
	return s.settled()
}

// TestBootResumes: the boot loader knows the mutable host only, so that is where a boot of the kernel lands. From there the
// host goes on by itself, before services start, to the last good root with that root's /etc.
func TestBootResumes(t *testing.T) {
	s := newSite(t, "boot")
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
			t.Fatalf("after a boot of the kernel status is %+v", v)
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
		if log := h.Must(t, "journalctl", "--boot", "--no-pager", "--output=cat", "--grep=lab mutable host|nginx", "--unit=nginx"); strings.Count(log, "Started nginx") > 1 {
			t.Errorf("services of the mutable host were started and stopped again:\n%s", log)
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
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "a full reboot landed here") {
			t.Errorf("status does not say how the host got here:\n%s", text)
		}
		if text := s.updatectl(exitDone, "config", "show").Stdout; !strings.Contains(text, `deadline = "1m17s"`) {
			t.Errorf("the configuration is the host's old one:\n%s", text)
		}
		t.Log("by hand, and by the nightly run when nothing newer can be had")
		s.switches("rollback")
		resumed(t)
		h.Cmdline = []string{"updatectl.resume=0"}
		onHost(t, s.boots("systemctl", "reboot"))
		if r := s.updatectl(exitDone, "apply", "--unattended"); !strings.Contains(r.Stdout, "updatectl.resume=0") {
			t.Errorf("the nightly run does not say why it stays: %s", r)
		}
		onHost(t, s.settled())
		h.Cmdline = []string{"systemd.mask=updatectl-resume.service"}
		onHost(t, s.boots("systemctl", "reboot"))
		h.Cmdline = nil
		s.registry.Stop()
		s.refused(exitUnreachable, "not reachable", "try again when the source answers", "apply")
		s.switches("apply", "--unattended")
		resumed(t)
		t.Log("and a boot does not need the registry")
		s.boots("systemctl", "reboot")
		resumed(t)
	})
	t.Run("with a unit that has failed and a typo made since the root was good", func(t *testing.T) {
		h.Must(t, "sh", "-ec", `printf '[health]\ndeadlin = "1m"\n' > /etc/updatectl/conf.d/20-typo.toml
printf '[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/tired.service
systemctl enable tired.service`)
		s := s.in(t)
		if v := s.boots("systemctl", "reboot"); v.Booted.Root != one || v.Phase != "good" {
			t.Fatalf("after a boot of the kernel status is %+v", v)
		}
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "tired.service") {
			t.Errorf("status does not tell of it:\n%s", text)
		}
		s.refused(exitUsage, "unknown key health.deadlin", "", "apply")
		h.Must(t, "sh", "-ec", "systemctl disable tired.service; rm /etc/systemd/system/tired.service /etc/updatectl/conf.d/20-typo.toml; systemctl daemon-reload; systemctl reset-failed")
	})
	t.Run("with a full disk", func(t *testing.T) {
		h.Must(t, "sh", "-c", fillVar)
		s := s.in(t)
		if r := h.Run(t.Context(), "sh", "-c", "echo text > /var/lib/updatectl/more"); r.Code == 0 {
			t.Fatal("the disk is not full: this shows nothing")
		}
		if _, err := h.CutPower(t.Context()); err != nil { // services that cannot save do not stop
			t.Fatal(err)
		}
		s.settles()
		if got := h.Must(t, "cat", "/usr/share/lab/version", "/run/lab-identity"); got != "1\n1" {
			t.Fatalf("booted is %q\n%s", got, h.Console())
		}
		h.Must(t, "sh", "-ec", "rm -f /var/fill /var/fill2 /var/lib/updatectl/more; systemctl reset-failed; systemctl restart updatectl-confirm")
		resumed(t)
	})
	t.Run("not healthy once", func(t *testing.T) {
		h.Must(t, "sh", "-ec", `mkdir -p /etc/updatectl/health.d/required.d; cd /etc/updatectl/health.d/required.d
printf '#!/bin/sh\n! test -e /var/lib/sick\n' > 10-sick; chmod 755 10-sick; touch /var/lib/sick; sed -i s/77s/20s/ /etc/updatectl/conf.d/10-since.toml`)
		s := s.in(t)
		v := s.boots("systemctl", "reboot")
		for deadline := time.Now().Add(2 * time.Minute); v.Kernel.SoftReboots < 2 && time.Now().Before(deadline); v = s.settles() {
		}
		onHost(t, v)
		if v.Good[0].Root != one || len(v.Bad) != 0 {
			t.Errorf("it is not the last good root any more: %+v", v)
		}
		h.Must(t, "rm", "/var/lib/sick")
		s.boots("systemctl", "reboot")
		resumed(t)
		h.Must(t, "sh", "-ec", "rm /etc/updatectl/health.d/required.d/10-sick; sed -i s/20s/77s/ /etc/updatectl/conf.d/10-since.toml")
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
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "2 attempts to resume ") {
			t.Errorf("status does not say that the host gave up:\n%s", text)
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

// TestPowerCutWhileTrying: a root that is not good yet is not resumed into; one that was lost twice is given up.
func TestPowerCutWhileTrying(t *testing.T) {
	s := newSite(t, "cut")
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
		if bad, isBad := v.Bad[root]; isBad != (attempt == 2) || isBad && !strings.Contains(bad.Reason, "tried 2 times") {
			t.Errorf("after %d power cuts bad is %+v", attempt, v.Bad)
		}
	}
	s.refused(exitBlocked, "tried 2 times", "--retry", "apply", "--from", image)
}
