//go:build lab

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// standing returns a unit that a soft reboot does not stop, like apparmor.service. Every run of its program adds a word
// and the version of the root to /run/lab-renew/NAME.
func standing(name, more string) []layerEntry {
	unit := "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=sysinit.target\n" +
		"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/lab/note " + name + " start\n" + more
	return []layerEntry{
		aFile("usr/lib/systemd/system/"+name+".service", unit),
		aLink("usr/lib/systemd/system/sysinit.target.wants/"+name+".service", "../"+name+".service"),
	}
}

// TestRenewed: what a soft reboot leaves active from the former root is renewed before ordinary services start, by the
// lists; what a device wants is started again; and status names what stays old.
func TestRenewed(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newPublisher(t)
	s.boot(lab.Options{Name: "renewed"}, nil)
	image := func(version string) (reference, root string) {
		entries := []layerEntry{
			aProgram("usr/lib/lab/note", "#!/bin/sh\nmkdir -p /run/lab-renew\necho $2 "+version+" >>/run/lab-renew/$1\n"),
			aFile("usr/lib/systemd/system/lab-agent.service", "[Service]\nExecStart=/usr/bin/sleep infinity\n"),
			// Whatever is ordinary starts later than what is renewed.
			aFile("usr/lib/systemd/system/lab-ordinary.service",
				"[Service]\nType=oneshot\nExecStart=/usr/bin/cp /run/lab-renew/profiles /run/lab-renew/seen\n"),
			aLink("usr/lib/systemd/system/multi-user.target.wants/lab-ordinary.service", "../lab-ordinary.service"),
			aFile("etc/updatectl/renew.d/lab.conf", "profiles.service renew # of the lab\nrules.service renew # too\n"),
		}
		entries = append(entries, standing("profiles", "ExecReload=/usr/lib/lab/note profiles reload\n")...)
		entries = append(entries, standing("rules", "ExecStop=/usr/lib/lab/note rules stop\n")...)
		entries = append(entries, standing("forgotten", "")...)
		entries = append(entries, standing("failing", "ExecReload=/bin/false\n")...)
		return s.variant("renewed-"+version, version, entries...)
	}
	one, oneRoot := image("1")
	two, twoRoot := image("2")
	s.switches("apply", "--from", one)
	s.runs(oneRoot, "1")
	read := func(name string) string { return strings.TrimSpace(s.host.Must(t, "cat", "/run/lab-renew/"+name)) }
	if got := read("profiles"); got != "start 1" {
		t.Fatalf("the unit of the image ran: %q", got)
	}
	if r := s.updatectl(exitAvailable, "plan", "--from", two); strings.Contains(r.Stdout, "forgotten.service") {
		t.Errorf("plan knows the units before the image is staged: %s", r.Stdout)
	}
	s.updatectl(exitAvailable, "stage", "--from", two)
	r := s.updatectl(exitAvailable, "plan", "--from", two)
	if !strings.Contains(r.Stdout, "forgotten.service stays as it is: no list says") ||
		strings.Contains(r.Stdout, "profiles.service") {
		t.Errorf("plan does not name what stays old: %s", r.Stdout)
	}

	// A device, as udev would have noted it. Where /sys is read-only, PID 1 has no devices; where it is not, udev runs.
	s.host.Must(t, "sh", "-ec", `echo "failing.service renew # of this site" >/etc/updatectl/renew.d/site.conf
cd /etc/systemd/system
for u in udevd.service udevd-control.socket udevd-kernel.socket udev-trigger.service; do
	ln -s /dev/null systemd-$u
done
mount -o remount,rw /sys; mkdir -p /run/udev/data /run/udev/tags/systemd
printf 'I:1\nE:SYSTEMD_WANTS=lab-agent.service\nG:systemd\nQ:systemd\nV:1\n' >/run/udev/data/c1:3
touch /run/udev/tags/systemd/c1:3
# networkd waits for udev, too.
for n in /sys/class/net/*/ifindex; do printf 'I:1\nV:1\n' >/run/udev/data/n$(cat $n); done`)
	wanted := func() {
		t.Helper()
		active := "systemctl is-active sys-devices-virtual-mem-null.device lab-agent.service || :"
		if got := s.host.Must(t, "sh", "-c", active); got != "active\nactive" {
			t.Errorf("the device and what it wants are %q", got)
		}
	}
	s.switches("apply", "--from", two)
	s.runs(twoRoot, "2")
	for name, want := range map[string]string{
		"profiles": "start 1\nreload 2", "rules": "start 1\nstop 2\nstart 2",
		"forgotten": "start 1", "failing": "start 1", "seen": "start 1\nreload 2",
	} {
		if got := read(name); got != want {
			t.Errorf("%s ran: %q, want %q", name, got, want)
		}
	}
	var k struct {
		Units []struct{ Unit, Reason string }
	}
	s.answer(&k, exitDone, "status", "--kernel")
	var names []string
	for _, u := range k.Units {
		names = append(names, u.Unit+": "+u.Reason)
	}
	if got := strings.Join(names, "\n"); len(names) != 2 ||
		!strings.Contains(got, "failing.service: renewing it failed") ||
		!strings.Contains(got, "forgotten.service: no list") {
		t.Errorf("status --kernel names as old:\n%s", got)
	}

	wanted()
	s.switches("rollback")
	s.runs(oneRoot, "1")
	if got := read("profiles"); got != "start 1\nreload 2\nreload 1" {
		t.Errorf("back in the first root, the unit ran: %q", got)
	}
	wanted()
}
