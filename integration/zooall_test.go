//go:build lab && zoo

package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

var qemuPace = pace{4 * time.Minute, 12 * time.Minute}

const (
	// guardMargin is how long the guard waits for confirm after the deadline.
	guardMargin = 15 * time.Second
	// deafLimit is how long the guard waits for a PID 1 that does not answer.
	deafLimit = 2 * time.Minute
)

// lost is the reason for a root that crashed the kernel.
const lost = "before it was up: its init ended, the kernel panicked, it rebooted the machine, or the power was cut"

// otherAnimals are the rest of those that a container can show: most use up the deadline, or crash systemd.
func otherAnimals(s *site) []animal {
	broken := s.agentFiles("")
	for i := range broken {
		if broken[i].name == "usr/bin/updatectl" {
			broken[i].text = "#!/bin/sh\nexit 1\n"
		}
	}
	return []animal{
		{name: "init is a dangling link", refused: true, reason: "image has no init",
			over: []layerEntry{gone("usr/lib/systemd/systemd"), aLink("usr/sbin/init", "/usr/lib/sysvinit/init")}},
		{name: "a service crashes over and over", reason: "crash.service",
			over: service("crash.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\n"+
				"Restart=always\nRestartSec=200ms\n")},
		{name: "no network", reason: "gateway " + s.host.Gateway(),
			over: []layerEntry{aFile("usr/lib/systemd/network/00-image.network",
				"[Match]\nName=host0 en*\n[Network]\nAddress=192.0.2.2/24\nGateway=192.0.2.1\n")}},
		{name: "broken dbus", reason: "dbus.service",
			over: []layerEntry{aProgram("usr/bin/dbus-daemon", "#!/bin/sh\nexit 1\n")}},
		{name: "a start job hangs", reason: "these units are still starting: wait.service", slow: guardMargin,
			over: hangs("wait.service", true)},
		{name: "no default target", reason: "rescue.target", slow: guardMargin,
			over: []layerEntry{gone(unitDir + "default.target")}},
		{name: "a slow check", reason: "required.d/10-slow: it was still running",
			over: []layerEntry{aProgram(checks+"required.d/10-slow", "#!/bin/sh\nsleep 600\n")}},
		{name: "broken agent", reason: "updatectl-confirm.service", slow: guardMargin, over: broken},
		{name: "confirm is masked", reason: "updatectl-confirm.service", slow: guardMargin,
			over: []layerEntry{aLink("etc/systemd/system/updatectl-confirm.service", "/dev/null")}},
		{name: "a mount fails", reason: "emergency.target", slow: guardMargin,
			over: []layerEntry{
				aFile(unitDir+"opt-data.mount",
					"[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=none\nWhere=/opt/data\nType=nosuchfs\n"),
				aLink(unitDir+"local-fs.target.requires/opt-data.mount", "../opt-data.mount")}},
		{name: "full var", reason: "no space left on device", slow: guardMargin,
			over:  early("fill.service", fillVar),
			after: func(s *site) { s.host.Must(s.T, "rm", "-f", "/var/fill", "/var/fill2") }},
		// The rules stay in the kernel, and would cut off the good root, too.
		{name: "it locks itself out", reason: "it could be reached before the switch", boots: 1,
			slow: nspawnPace.deadline,
			over: early("lock.service", "nft add table inet lock; "+
				"nft \"add chain inet lock out { type filter hook output priority 0; policy drop; }\"")},
		{name: "units in a cycle", reason: "it must be active",
			over: []layerEntry{
				aFile(unitDir+"nginx.service.d/cycle.conf", "[Unit]\nAfter=ssh.service\n"),
				aFile(unitDir+"ssh.service.d/cycle.conf", "[Unit]\nAfter=nginx.service\n")}},
		{name: "a service eats the memory", reason: "hungry.service",
			over: service("hungry.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nMemoryMax=64M\n"+
				"MemorySwapMax=0\nLimitAS=128M\nExecStart=/usr/bin/tail /dev/zero\nRestart=always\n"+
				"RestartSec=200ms\n")},
		{name: "no journal", reason: "systemd-journald.service",
			over: []layerEntry{aLink(unitDir+"systemd-journald.service", "/dev/null")}},
		{name: "tmpfiles are broken", reason: "systemd-tmpfiles-setup.service",
			over: []layerEntry{aProgram("usr/bin/systemd-tmpfiles", "#!/bin/sh\nexit 1\n")}},
		{name: "it reboots the machine", reason: lost, boots: 2,
			over: early("again.service", "systemctl reboot --force --force; sleep infinity")},
		{name: "init exits", reason: lost, boots: 2,
			over: []layerEntry{aProgram("usr/lib/systemd/systemd", "#!/bin/sh\nexit 1\n")}},
		{name: "wrong libc", reason: lost, boots: 2,
			over: []layerEntry{aProgram("usr/lib/x86_64-linux-gnu/libc.so.6", "from another world\n")}},
		{name: "init hangs", reason: "systemd does not answer", boots: 1, slow: guardMargin,
			over: []layerEntry{aProgram("usr/lib/systemd/systemd", "#!/bin/sh\nwhile :; do sleep 1000; done\n")}},
	}
}

// TestWholeZoo is the rest of the zoo that a container can show.
func TestWholeZoo(t *testing.T) {
	beside(t, lab.Nspawn)
	z := newZoo(t, lab.Options{Name: "wholezoo"}, nspawnPace)
	z.visit(otherAnimals(z.site))
}

// machineAnimals are those that need a kernel of the host's own, devices or a clock.
func machineAnimals() []animal {
	return []animal{
		{name: "init exits", reason: lost, boots: 2,
			over: []layerEntry{aProgram("usr/lib/systemd/systemd", "#!/bin/sh\nexit 1\n")}},
		{name: "wrong libc", reason: "systemd has not answered", boots: 1, slow: guardMargin + deafLimit,
			over: []layerEntry{gone("usr/lib64/ld-linux-x86-64.so.2")}},
		{name: "udev is broken", reason: "systemd-udevd.service",
			over: []layerEntry{aProgram("usr/lib/systemd/systemd-udevd", "#!/bin/sh\nexit 1\n")}},
		{name: "a disk is missing", reason: "emergency.target", slow: guardMargin,
			over: []layerEntry{
				aFile(unitDir+"opt-data.mount",
					"[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=/dev/disk/by-label/nowhere\nWhere=/opt/data\n"),
				aFile(unitDir+`dev-disk-by\x2dlabel-nowhere.device.d/timeout.conf`,
					"[Unit]\nJobRunningTimeoutSec=20s\n"),
				aLink(unitDir+"local-fs.target.requires/opt-data.mount", "../opt-data.mount")}},
		// The deadline and the rollback do not depend on the clock; a check that does fails.
		{name: "the clock is far off", reason: "required.d/10-clock: exit code 1: it is 2101",
			over: append(early("clock.service", "date --set=2101-01-01"),
				aProgram(checks+"required.d/10-clock", "#!/bin/sh\ndate '+it is %Y'\ntest $(date +%Y) -lt 2100\n")),
			after: func(s *site) {
				s.host.Must(s.T, "date", fmt.Sprintf("--set=@%d", time.Now().Unix()))
			}},
	}
}

// TestVMZoo is the part of the zoo that needs a machine.
func TestVMZoo(t *testing.T) {
	beside(t, lab.QEMU)
	z := newZoo(t, lab.Options{Name: "vmzoo", Kind: lab.QEMU}, qemuPace)
	z.visit(machineAnimals())
}
