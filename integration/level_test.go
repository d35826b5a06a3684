//go:build lab

package integration

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// kernelStatus is the part of `updatectl status --kernel --output json` that the test reads.
type kernelStatus struct {
	Schema, Release string
	Wanted, Missing []string
	ModulesFrom     string `json:"modules_from"`
	Own             []kernelBuild
	Sysctls         []struct{ Key, Value, Root string }
	Profiles        []struct{ Profile, Root string }
}

type kernelBuild struct{ Release, Version string }

func (s *site) kernel() kernelStatus {
	s.Helper()
	var v kernelStatus
	if err := json.Unmarshal([]byte(s.updatectl(exitDone, "--output", "json", "status", "--kernel").Stdout),
		&v); err != nil {
		s.Fatal(err)
	}
	return v
}

// rebootsFor runs a command that fully reboots the host, which lands on the host root and resumes from there.
func (s *site) rebootsFor(target, version string, args ...string) {
	s.Helper()
	if v := s.boots(append([]string{"updatectl"}, args...)...); v.Kernel.SoftReboots != 1 {
		s.Errorf("the host soft-rebooted %d times after the full reboot, want once", v.Kernel.SoftReboots)
	}
	s.runs(target, version)
}

// kernelOf returns the part of an x86 kernel that identifies its build: the header, and the text that it points to.
func kernelOf(banner string) string {
	const magicAt, pointerAt, sector = 0x202, 0x20e, 0x200
	text := make([]byte, 3*sector)
	copy(text[magicAt:], "HdrS")
	binary.LittleEndian.PutUint16(text[pointerAt:], uint16(len(text)-sector))
	return string(text) + banner + "\x00"
}

// TestLevels: what an image needs from the kernel decides the level of the switch, and status shows what stays old.
func TestLevels(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "levels")
	s.settlesAtOnce()
	h := s.host
	kernel := h.Must(t, "uname", "-r")
	h.Must(t, "sh", "-ec", `d=/usr/lib/modules/$(uname -r); mkdir -p $d; touch $d/modules.dep
echo of the running kernel > $d/x.ko
echo net.ipv4.ip_default_ttl=70 > /etc/sysctl.d/10-of-the-host.conf; systemctl restart systemd-sysctl`)
	if got := h.Must(t, "cat", "/proc/sys/net/ipv4/ip_default_ttl"); got != "70" {
		t.Fatalf("sysctl.d does not work in this container: %s", got)
	}
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	h.Must(t, "sh", "-ec", `echo "since = image 1" >> /etc/lab/constant.conf`)

	wants, wantsRoot := s.variant("wants", "1",
		aFile("usr/lib/updatectl/kargs.d/10-lab.toml", "kargs = ['lab.wanted=yes']\n"),
		aFile("usr/lib/sysctl.d/10-lab.conf", "net.ipv4.tcp_keepalive_time = 1234\n"),
		// The running kernel's release, but another build.
		aFile("usr/lib/modules/"+kernel+"/modules.dep", ""), aFile("usr/lib/modules/"+kernel+"/x.ko",
			"of another build\n"),
		aFile("usr/lib/modules/"+kernel+"/vmlinuz", kernelOf(kernel+" (lab@lab) #0 of another day")))
	const missing = "lab.wanted=yes"

	t.Run("what stays old", func(t *testing.T) {
		s := s.in(t)
		k := s.kernel()
		if k.Schema != "updatectl.status.kernel/v1" || k.ModulesFrom != "host" || len(k.Wanted) != 0 {
			t.Errorf("status --kernel is %+v", k)
		}
		if len(k.Sysctls) != 1 || k.Sysctls[0].Key != "net.ipv4.ip_default_ttl" || k.Sysctls[0].Value != "70" ||
			k.Sysctls[0].Root != "host" {
			t.Errorf("sysctls that no file sets any more: %+v", k.Sysctls)
		}
		text := s.updatectl(exitDone, "status", "--kernel").Stdout
		for _, want := range []string{"carried over from host", "net.ipv4.ip_default_ttl = 70"} {
			if !mentions(text, want) {
				t.Errorf("status --kernel does not say %q:\n%s", want, text)
			}
		}
	})
	t.Run("refused with the reasons", func(t *testing.T) {
		s := s.in(t)
		s.updatectl(exitAvailable, "stage", "--from", wants)
		if p := s.plans(exitFullReboot, "--from", wants); !strings.Contains(p.check("kernel command line"), missing) ||
			!strings.Contains(p.check("kernel modules"), "another build") {
			t.Errorf("the plan does not show the reasons: %+v", p)
		}
		before := s.condition()
		s.refused(exitFullReboot, missing, "--level full", "apply", "--from", wants)
		s.refused(exitFullReboot, missing, "--level full", "apply", "--level", "soft", "--from", wants)
		s.untouched(before)
	})
	t.Run("disks that a soft reboot would detach", func(t *testing.T) {
		s := s.in(t)
		unit := func(name, dependency string) {
			h.Must(t, "sh", "-ec", "printf '[Unit]\\nDefaultDependencies=no\\n"+dependency+"[Service]\\n"+
				"Type=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n' > /run/systemd/system/"+
				name+"; systemctl daemon-reload; systemctl start "+name)
		}
		// as systemd writes it with x-initrd.attach
		unit("systemd-cryptsetup@initrd.service", "")
		unit("systemd-cryptsetup@data.service", `Conflicts=umount.target\nBefore=umount.target\n`) // and without
		disks := s.plans(exitIncompatible, "--from", wants).check("encrypted disks")
		if !strings.Contains(disks, "systemd-cryptsetup@data.service") || strings.Contains(disks, "@initrd") {
			t.Errorf("the plan says of the disks: %q", disks)
		}
		before := s.condition()
		s.refused(exitIncompatible, "x-initrd.attach", "updatectl plan", "apply", "--level", "full",
			"--from", wants)
		s.untouched(before)
		h.Must(t, "sh", "-ec", "systemctl stop 'systemd-cryptsetup@*'; rm /run/systemd/system/systemd-cryptsetup@*; "+
			"systemctl daemon-reload")
	})
	t.Run("full, asked for", func(t *testing.T) {
		s := s.in(t)
		s.rebootsFor(wantsRoot, "1", "apply", "--level", "full", "--from", wants)
		h.Must(t, "grep", "since = image 1", "/etc/lab/constant.conf")
		if got := h.Must(t, "cat", "/usr/lib/modules/"+kernel+"/x.ko"); got != "of the running kernel" {
			t.Errorf("the module is %q", got)
		}
		if got := h.Must(t, "cat", "/proc/sys/net/ipv4/tcp_keepalive_time"); got != "1234" {
			t.Errorf("the root's sysctl.d is not in force: %s", got)
		}
		k := s.kernel()
		if !slices.Equal(k.Missing, []string{"lab.wanted=yes"}) {
			t.Errorf("status --kernel is %+v", k)
		}
		// It is hidden by the modules that were carried over.
		if !slices.Contains(k.Own, kernelBuild{kernel, "#0 of another day"}) {
			t.Errorf("the root's own kernels are %+v", k.Own)
		}
	})
	t.Run("full, into an unhealthy root", func(t *testing.T) {
		s := s.in(t)
		tired, root := s.variant("tired", "1", service("tired.service",
			"[Service]\nType=oneshot\nExecStart=/bin/false\n")...)
		s.boots("updatectl", "apply", "--level", "full", "--from", tired)
		v := s.condemned(root)
		if !strings.Contains(v.Bad[root].Reason, "tired.service") {
			t.Errorf("bad are %+v", v.Bad)
		}
		h.Must(t, "systemctl", "reset-failed")
		s.runs(wantsRoot, "1")
		h.Must(t, "grep", "since = image 1", "/etc/lab/constant.conf")
	})
	t.Run("full, because the kernel is too old", func(t *testing.T) {
		s := s.in(t)
		s.publish("2", "os/server:stable")
		h.Must(t, "sh", "-ec", `mkdir -p /etc/updatectl/conf.d
printf '[switch]\nmax-kernel-age = "1s"\n' > /etc/updatectl/conf.d/10-age.toml`)
		s.refused(exitFullReboot, "max-kernel-age", "--level full", "apply")
		if by := s.status().Kernel.RebootBy; by.IsZero() {
			t.Error("status does not show by when a full reboot is due")
		}
		h.Must(t, "sh", "-ec", `echo 'fallback = "full"' >> /etc/updatectl/conf.d/10-age.toml`)
		s.rebootsFor(s.roots["2"], "2", "apply")
		h.Must(t, "grep", "since = image 1", "/etc/lab/constant.conf")
	})
}
