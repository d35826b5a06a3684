package health

import "testing"

// TestIsOfUsers: what people can make fail does not count, and what belongs to the root does.
func TestIsOfUsers(t *testing.T) {
	for _, unit := range []string{
		"user@1000.service", "user-runtime-dir@1000.service", "user-1000.slice", "session-3.scope",
		"systemd-coredump@12-3456-0.service", "systemd-coredump@3-4567_8901-0.service", "run-u12.service",
		"run-r3f2a9c1d0b7e4c55a1b2c3d4e5f60718.timer", "run-p812-i990.service", "docker-0123abcd.scope",
		"machine-qemu\\x2d1\\x2dvm.scope", "home-alice.mount", "home-alice-mnt.automount", "run-user-1000-doc.mount",
		"run-media-alice-USB.mount", "sshd@7-192.0.2.1:22-192.0.2.9:51234.service",
		"ssh@0-10.0.0.1:22-10.0.0.2:40000.service",
		"dbus-:1.3-org.freedesktop.problems@0.service", "cockpit@2-771-0.service",
		"sshd@1-2001:db8::1:22-2001:db8::2:40000.service",
	} {
		if !isOfUsers(unit) {
			t.Errorf("%s counts against the root", unit)
		}
	}
	for _, unit := range []string{
		"ssh.service", "sshd.service", "home.mount", "srv-data.mount", "var-lib-db.mount", "user.slice", "cron.service",
		"systemd-logind.service", "getty@tty1.service", "serial-getty@ttyS0.service", "postgresql@15-main.service",
		"openvpn-server@site.service", "wg-quick@wg0.service", "run-lock.mount", "dev-sda2.swap", "app.service",
		"systemd-fsck@dev-disk-by\\x2duuid-1234.service", "run-parts.service", "tmp.mount", "redis@6379.service",
		"postgresql@15-main2.service",
		"lvm2-pvscan@8:2.service", "ifup@eth0.service", "mdcheck_start.timer", "container@web-1.service",
	} {
		if isOfUsers(unit) {
			t.Errorf("%s does not count against the root", unit)
		}
	}
}
