//go:build lab && endurance

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.V4) }

// TestDistributions: a Debian trixie host moves to images of forky and of sid, each with a systemd and a C library of
// its own, and back. Nobody is locked out by the way, and people keep their names, numbers and passwords.
func TestDistributions(t *testing.T) {
	s := newPublisher(t)
	s.boot(lab.Options{Name: "suites"}, nil)
	h := s.host
	h.Must(t, "sh", "-ec", furnish)
	const look = `getent passwd ansible jdoe legacy alice git; id -nG ansible; id -nG jdoe; id -nG alice
getent shadow ansible jdoe legacy | cut -d: -f1,2; getent group docker
sudo -l -U ansible | tail -1; sudo -l -U jdoe | tail -1; cat /etc/ssh/keys/git /etc/nftables.conf
stat -c '%U:%G %n' /home/* /var/lib/git; su -c 'echo here' legacy
sshd -T | tr A-Z a-z | grep -E '^(port|passwordauth|authorizedkeysfile)'
ss -ltnH | grep -o ':2222' | sort -u
stat -c '%U:%G %A %n' /usr/bin/sudo /usr/lib/dbus-1.0/dbus-daemon-launch-helper /var/lib/redis
systemctl is-active ssh nginx redis-server
redis-cli get visits`
	h.Must(t, "redis-cli", "set", "visits", "7")
	before := h.Must(t, "sh", "-c", look)

	systemds := map[string]string{}
	for _, move := range []struct{ version, verb string }{{"3", "apply"}, {"4", "apply"}, {"3", "rollback"}} {
		if move.verb == "apply" {
			s.publish(move.version, "os/server:stable")
		}
		if move.verb == "apply" {
			s.switches("apply", "--accept", "services") // the host's own agents stay behind
		} else {
			s.switches(move.verb)
		}
		s.runs(s.roots[move.version], move.version)
		if after := h.Must(t, "sh", "-c", look); after != before {
			t.Errorf("on the host root:\n%s\nafter %s to %s:\n%s", before, move.verb, move.version, after)
		}
		systemds[move.version] = h.Must(t, "sh", "-c", "systemctl --version | head -1; ldd --version | head -1")
		t.Logf("image %s has %s", move.version, systemds[move.version])
	}

	s.switches("rollback", "host")
	if v := s.settled(); v.Booted.Root != "host" || v.Phase != "good" {
		t.Fatalf("want the host root booted and good, status is %+v", v)
	}
	if after := h.Must(t, "sh", "-c", look); after != before {
		t.Errorf("before:\n%s\nback on the host root:\n%s", before, after)
	}
	if release := h.Must(t, "cat", "/etc/debian_version"); !strings.HasPrefix(release, "13") {
		t.Errorf("the host root is Debian %s, want 13", release)
	}
}
