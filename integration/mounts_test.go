//go:build lab

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// furnishMounts gives a host what ordinary servers have: a swap file, bind mounts of its own root, and what containers
// leave behind below /var.
const furnishMounts = `dd if=/dev/zero of=/swap.img bs=1M count=4 status=none; mkswap -q /swap.img
mkdir -p /opt/data /srv/data /srv/cache /mnt/data
echo data > /opt/data/file
cat >> /etc/fstab <<END
/swap.img none swap sw 0 0
/opt/data /srv/data none bind
/opt/data /mnt/data none bind,nofail
tmpfs /srv/cache tmpfs size=1m 0 0
END
systemctl daemon-reload
systemctl restart local-fs.target; systemctl start srv-data.mount mnt-data.mount srv-cache.mount
echo cached > /srv/cache/file`

// furnishAutomounts gives a machine state paths that are mounted on first use.
const furnishAutomounts = `mkdir -p /opt/lazy /opt/home /srv/lazy
cp -a /home/. /opt/home/
echo lazy > /opt/lazy/file; echo home > /opt/home/file
cat >> /etc/fstab <<END
/opt/lazy /srv/lazy none bind,x-systemd.automount
/opt/home /home none bind,x-systemd.automount
END
systemctl daemon-reload; systemctl restart local-fs.target`

// triggersNoAutomount runs the tests of package assembly that need a kernel with automounts.
func (s *site) triggersNoAutomount() {
	s.Helper()
	const name, inside = "assembly.test", "/var/tmp/assembly.test"
	program := filepath.Join(s.TempDir(), name)
	build := exec.CommandContext(s.Context(), "go", "test", "-c", "-tags", "lab", "-o", program, "../switcher/assembly")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.Fatalf("cannot build %s: %v\n%s", name, err, out)
	}
	// mkfs.erofs needs only libraries that every Debian has, and runs on a newer one than its own.
	const mkfsInside = "/usr/local/sbin/mkfs.erofs"
	mkfs, err := exec.LookPath("mkfs.erofs")
	if err := errors.Join(err, s.host.CopyIn(s.Context(), program, inside),
		s.host.CopyIn(s.Context(), mkfs, mkfsInside)); err != nil {
		s.Fatal(err)
	}
	const test = "TestAutomountIsNotTriggered"
	r := s.host.Run(s.Context(), inside, "-test.v", "-test.run", "^"+test+"$")
	if r.Code != 0 || strings.Count(r.Stdout, "--- PASS: "+test) != 4 { // with its three cases
		s.Errorf("in the machine: %s", r)
	}
	s.host.Must(s.T, "rm", inside, mkfsInside)
}

// mountsOnFirstUse expects the automounts of the host: nothing has used them since the switch, and then this does.
func (s *site) mountsOnFirstUse() {
	s.Helper()
	const lazy = "findmnt -no FSTYPE /home; findmnt -no FSTYPE /srv/lazy; " +
		"systemctl is-active home.automount srv-lazy.automount"
	if got := s.host.Sh(s.Context(), lazy).Stdout; got != "autofs\nautofs\nactive\nactive\n" {
		s.Errorf("the automounts are %q", got)
	}
	if got := s.host.Must(s.T, "cat", "/home/file", "/srv/lazy/file"); got != "home\nlazy" {
		s.Errorf("behind the automounts is %q", got)
	}
}

const containerMounts = `cd /var/lib; mkdir -p docker/lower docker/merged docker/shm
mount -t tmpfs shm docker/shm; mount -t overlay -o ro,lowerdir=docker/lower:docker/shm overlay docker/merged`

// TestOrdinaryMounts: a host with a swap file, bind mounts and containers switches, as often as it likes,
// and rolls back. Plan names what changes; mounts do not pile up.
func TestOrdinaryMounts(t *testing.T) {
	s := newSite(t, "mounts")
	h := s.host
	h.Must(t, "sh", "-ec", furnishMounts)
	h.Must(t, "sh", "-ec", containerMounts)
	s.updatectl(exitAvailable, "stage")
	plan := s.updatectl(exitAvailable, "plan").Stdout
	for _, named := range []string{"/swap.img", "/opt/data",
		"/var/lib/docker/merged: what is mounted here is not carried over"} {
		if !strings.Contains(plan, named) {
			t.Errorf("plan does not name %q:\n%s", named, plan)
		}
	}
	private := map[string]string{"1": "700", "2": "700"}
	same := func(version string) {
		t.Helper()
		s.settled()
		for command, want := range map[string]string{
			"cat /usr/share/lab/version":                                       version,
			"cat /srv/data/file /mnt/data/file":                                "data\ndata",
			"findmnt -no FSTYPE /var/lib/docker/shm /var/lib/docker/merged; :": "",
			"systemctl list-units --failed --plain --no-legend":                "",
			"systemctl is-active local-fs.target":                              "active",
			// a backup that keeps to its file system finds nothing of the host root, and only root can look into that
			"find / /var -xdev -path '*/host/etc/shadow'; find / -maxdepth 1 -name .updatectl -printf %m": private[version],
		} {
			if got := h.Must(t, "sh", "-c", command+" 2>/dev/null"); got != want {
				t.Errorf("in %s: %s: %q, want %q", version, command, got, want)
			}
		}
	}
	s.switches("apply")
	same("1")
	if got := h.Must(t, "cat", "/srv/cache/file"); got != "cached" {
		t.Errorf("a tmpfs that fstab names has %q", got)
	}
	count := h.Must(t, "sh", "-c", "wc -l < /proc/1/mountinfo")
	s.publish("2", "os/server:stable")
	h.Must(t, "sh", "-ec", containerMounts)
	s.switches("apply")
	same("2")
	for _, version := range []string{"1", "2", "1"} {
		h.Must(t, "sh", "-ec", containerMounts)
		s.switches("rollback", s.roots[version])
		same(version)
		if got := h.Must(t, "sh", "-c", "wc -l < /proc/1/mountinfo"); got != count {
			t.Errorf("%s mounts in %s, %s after the first switch", got, version, count)
		}
	}
	s.switches("rollback", "host")
	same("host")
}

// TestResumeWithStaleFstab: nobody looks at the fstab of the host root any more. A line in it that fails by now
// sends the host root to emergency mode, and the last good root is resumed all the same.
func TestResumeWithStaleFstab(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "stale")
	s.settlesAtOnce()
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	fstab, err := os.OpenFile(filepath.Join(s.host.Disk(), "etc/fstab"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fstab.WriteString("tmpfs /mnt tmpfs gone=1 0 0\n")
	if err := errors.Join(err, fstab.Close()); err != nil {
		t.Fatal(err)
	}
	if v := s.boots("systemctl", "reboot"); v.Booted.Root != s.roots["1"] || v.Phase != "good" {
		t.Errorf("after a full reboot, status is %+v", v)
	}
	if console := s.host.Console(); !strings.Contains(console, "emergency") {
		t.Errorf("the host root was not in emergency mode, so this shows nothing:\n%s", console)
	}
}
