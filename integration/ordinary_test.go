//go:build lab

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// furnish makes a fresh Debian host an ordinary server, by shell: people whom only their purpose tells from services,
// rules for who may log in and from where, and a network of its own.
const furnish = `
groupadd -g 850 docker
useradd --system --create-home --shell /bin/bash -u 960 ansible; echo ansible:secret | chpasswd
usermod -aG sudo ansible; echo 'ansible ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ansible
useradd -m -u 100234 -s /bin/bash jdoe; echo jdoe:secret | chpasswd; usermod -aG sudo jdoe
useradd -m -u 501 -s /bin/bash legacy; echo legacy:secret | chpasswd
useradd -m -s /bin/bash alice; usermod -aG docker alice
useradd --system -u 961 -d /var/lib/git -m -s /bin/sh git
mkdir -p /etc/ssh/keys; echo ssh-ed25519 AAAA git >/etc/ssh/keys/git
useradd --system -u 962 -d /nonexistent -s /usr/sbin/nologin exporter
printf 'Port 2222\nPasswordAuthentication no\nAuthorizedKeysFile /etc/ssh/keys/%%u .ssh/authorized_keys\n' \
	>>/etc/ssh/sshd_config
printf 'table inet lab { }\n' >/etc/nftables.conf
systemctl restart ssh

mkdir -p /opt/agent /data/db /usr/local/bin; dd if=/dev/zero of=/data/db/1 bs=1M count=2 status=none
for p in /opt/agent/run /usr/local/bin/old; do printf '#!/bin/sh\nexec sleep infinity\n' >$p; chmod 755 $p; done
unit='[Service]\nExecStart=%s\n[Install]\nWantedBy=multi-user.target\n'
printf "$unit" /opt/agent/run >/etc/systemd/system/site-agent.service
printf "$unit" /usr/local/bin/old >/etc/systemd/system/old-agent.service
systemctl daemon-reload; systemctl enable --now site-agent.service old-agent.service
echo here >/etc/forgotten.conf; chown alice:docker /etc/forgotten.conf; chmod 640 /etc/forgotten.conf
`

// TestOrdinaryServer: neither the first image nor the second locks anybody out of an ordinary server. Who could log in
// still can, by the same rules, and plan has named the others.
func TestOrdinaryServer(t *testing.T) {
	s := newSite(t, "ordinary")
	h := s.host
	h.Must(t, "sh", "-ec", furnish)
	h.Must(t, "sh", "-ec", furnishMore)
	before := s.look()
	if !strings.Contains(before.rows["sudo"], "NOPASSWD") || !strings.Contains(before.rows["ports"], ":2222") ||
		!strings.Contains(before.rows["logins"], "jdoe sudo") || strings.Count(before.rows["local authority"], "OK") != 2 {
		t.Fatalf("the host is not furnished:\n%v", before.rows)
	}
	report := s.updatectl(exitDone, "adopt").Stdout // no image is needed
	for _, named := range []string{
		"/opt/agent", "/data", "/usr/local/bin/old", "site-agent.service", "forgotten.conf",
	} {
		if !strings.Contains(report, named) {
			t.Errorf("adopt does not name %s:\n%s", named, report)
		}
	}
	s.updatectl(exitAvailable, "stage")
	s.keepsServices()

	// A way in that needs what the image lacks is a refusal, and no surprise.
	h.Must(t, "sh", "-ec", `d=$(dirname /usr/lib/*/security/pam_unix.so); cp $d/pam_unix.so $d/pam_lab.so
sed -i '1i auth sufficient pam_lab.so' /etc/pam.d/sshd`)
	if r := s.updatectl(exitIncompatible, "plan"); !strings.Contains(r.Stdout,
		"the image lacks pam_lab.so, which /etc/pam.d/sshd names") {
		t.Errorf("the plan does not name the module that is missing: %s", r.Stdout)
	}
	s.refused(exitIncompatible, "the image lacks pam_lab.so", "", "apply")
	h.Must(t, "sed", "-i", "/pam_lab/d", "/etc/pam.d/sshd")

	r := s.updatectl(exitIncompatible, "plan") // for old-agent
	if !strings.Contains(r.Stdout, "exporter (962)") || strings.Contains(r.Stdout, "ansible (960)") {
		t.Errorf("the plan does not list who is left behind: %s", r.Stdout)
	}
	h.Must(t, "ip", "netns", "add", "blue")
	s.switches("apply", "--accept", "services")
	s.runs(s.roots["1"], "1")
	h.Must(t, "sh", "-ec", "ip netns add blue; ip netns delete blue # the file of the one before is gone")
	s.fetchesForgotten()
	s.maintainsHostRoot()
	s.isAs(before, "in the first image")
	h.Must(t, "sh", "-ec", `test -e /run/crond.reboot # only the second image has no cron
chmod 600 /etc/lab/changing.conf
echo '@reboot date >> /home/alice/reboot.log' | crontab -u alice -`)

	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	s.isAs(before, "in the second image", ofCron...)
	if got := h.Must(t, "sh", "-c", "stat -c %a /etc/lab/changing.conf; cat /etc/lab/changing.conf"); !strings.HasPrefix(
		got, "600\n") || !strings.Contains(got, "two") {
		t.Errorf("a stricter mode has frozen a file of the image: %s", got)
	}

	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	ran := func() bool { return h.Run(t.Context(), "test", "-s", "/home/alice/reboot.log").Code == 0 }
	if !h.Await(t, h.Patience(), ran) {
		t.Error("cron did not run alice's @reboot job in the root that the host rolled back to")
	}
	s.isAs(before, "back in the first image", "crontab")
	s.switches("rollback", "host")
	s.settled()
	s.isAs(before, "back on the host root", "crontab")
	// The image was rolled back from, which is another matter.
	if r := s.updatectl(exitBlocked, "plan"); !strings.Contains(r.Stdout, "has accepted: old-agent.service") {
		t.Errorf("plan asks again for what was accepted: %s", r.Stdout)
	}
}

// keepsServices puts what adopt prints into the configuration: before, apply refuses the image because of two services
// of the host, and after it because of one, whose program nothing keeps.
func (s *site) keepsServices() {
	s.Helper()
	s.refused(exitIncompatible, "site-agent.service", "apply --accept services", "apply")
	s.host.Must(s.T, "sh", "-ec", `mkdir -p /etc/updatectl/conf.d
updatectl adopt | sed -n '/^\[state\]/,$p' >/tmp/state.toml; cp /tmp/state.toml /etc/updatectl/conf.d/state.toml`)
	r := s.updatectl(exitIncompatible, "plan")
	if strings.Contains(r.Stdout, "site-agent.service (") || !strings.Contains(r.Stdout,
		"old-agent.service (its unit is not in the new root)") {
		s.Errorf("with the [state] table of adopt, plan prints: %s", r.Stdout)
	}
	s.refused(exitUsage, "it is one of access, services", "", "apply", "--accept", "everything")
}

// fetchesForgotten fetches a file from the host root. For paths that cannot be fetched, the error says what to do
// instead.
func (s *site) fetchesForgotten() {
	s.Helper()
	s.host.Must(s.T, "test", "!", "-e", "/etc/forgotten.conf")
	s.updatectl(exitDone, "adopt", "--from-host", "/etc/forgotten.conf")
	got := s.host.Must(s.T, "sh", "-c", "cat /etc/forgotten.conf; stat -c '%U:%G %a' /etc/forgotten.conf")
	if got != "here\nalice:docker 640" {
		s.Errorf("what was fetched is %q", got)
	}
	s.refused(exitError, "comes from the image", "", "adopt", "--from-host", "/usr/local/bin/old")
	s.refused(exitError, "useradd", "", "adopt", "--from-host", "/etc/passwd")
	s.refused(exitError, "was adopted before", "", "adopt")
}

// maintainsHostRoot installs a package on the host root. The image has nothing of it, and its service is not started.
func (s *site) maintainsHostRoot() {
	s.Helper()
	s.host.Must(s.T, "updatectl", "host-root", "run", "--", "sh", "-ec", `cd $(mktemp -d)
mkdir -p tool/DEBIAN tool/etc/init.d tool/usr/bin
printf '%s\n' 'Package: lab-tool' 'Version: 1' 'Architecture: all' 'Maintainer: lab <root@localhost>' \
	'Description: a service' >tool/DEBIAN/control
printf '#!/bin/sh\ninvoke-rc.d lab-tool start\n' >tool/DEBIAN/postinst
printf '#!/bin/sh\necho "$1" >/var/lib/lab-tool.ran\n' >tool/etc/init.d/lab-tool
cp /bin/true tool/usr/bin/lab-tool
chmod 755 tool/DEBIAN/postinst tool/etc/init.d/lab-tool
dpkg-deb --build tool lab-tool.deb
dpkg -i lab-tool.deb`)
	s.host.Must(s.T, "sh", "-ec", `test -x /.updatectl/host/usr/bin/lab-tool
test ! -e /usr/bin/lab-tool; test ! -e /etc/init.d/lab-tool; ! dpkg -s lab-tool
test ! -e /var/lib/lab-tool.ran; test ! -L /.updatectl/host/usr/sbin/policy-rc.d
! touch /.updatectl/host/etc/lab-tool`)
	r := s.host.Sh(s.T.Context(), "echo here | updatectl host-root run -- sh -c 'cat /etc/hostname -; exit 7'")
	if r.Code != 7 || r.Stdout != s.host.Name+"\nhere\n" {
		s.Errorf("a program in the host root ends with %s", r)
	}
	s.host.Must(s.T, "updatectl", "host-root", "run", "dpkg", "--purge", "lab-tool")
}

// TestOrdinaryOwners: set-id files of the image belong to the same group as in the image, although this host has given
// its number to another one, and what became of users in an image root is there after a rollback to the host root.
func TestOrdinaryOwners(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "owners")
	h := s.host
	h.Must(t, "sh", "-ec", `useradd -m -s /bin/bash alice; echo alice:first | chpasswd; useradd -m -s /bin/bash bob`)
	s.updatectl(exitAvailable, "stage")
	root := "/var/lib/updatectl/roots/" + s.roots["1"]
	const groups = `find /usr -xdev -perm /6000 -printf '%u:%g %m %p\n' | sort`
	want := h.Must(t, "sh", "-c", groups)
	if !strings.Contains(want, ":") {
		t.Fatal("the host has no set-id files")
	}
	// Whatever number the image gives the groups of its set-group-id files, here docker and others have it.
	h.Must(t, "sh", "-ec", `i=0; for g in $(getent group | cut -d: -f3 | sort -n | awk '$1 > 0 && $1 < 1000'); do
i=$((i+1)); name=$(getent group $g | cut -d: -f1)
case $name in crontab|_ssh|messagebus) groupmod -g $((850+i)) $name; groupadd -g $g docker-$i;; esac; done`)
	r := s.updatectl(exitAvailable, "plan")
	t.Logf("the plan:\n%s", r.Stdout)
	if !strings.Contains(r.Stdout, "\nOwners ") {
		t.Error("the plan does not say that files of the image show other numbers")
	}
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	got := h.Must(t, "sh", "-c", groups)
	t.Logf("on the host:\n%s\nin the image:\n%s", want, got)
	for line := range strings.Lines(got) {
		if strings.Contains(line, "docker") {
			t.Errorf("a set-id file of the image belongs to another group of the host: %s", line)
		}
		fields := strings.Fields(line)
		if len(fields) == 3 && strings.Contains(want, " "+fields[2]+"\n") && !strings.Contains(want, line) {
			t.Errorf("%s had other owners on the host:\n%s", line, want)
		}
	}
	if out := h.Must(t, "sh", "-c", "ls "+root+"/owners.json"); !strings.Contains(out, "owners.json") {
		t.Errorf("the owners are not kept beside the root: %s", out)
	}

	h.Must(t, "sh", "-ec", `echo alice:second | chpasswd; userdel bob; useradd -m -s /bin/bash eve
echo changed >/etc/motd`)
	const look = `getent passwd alice bob eve; getent shadow alice bob eve; getent group docker-1 eve`
	users := h.Run(t.Context(), "sh", "-c", look).Stdout
	s.switches("rollback", "host")
	if v := s.settled(); v.Booted.Root != "host" || v.Phase != "good" {
		t.Fatalf("want the host root booted and good, status is %+v", v)
	}
	if now := h.Run(t.Context(), "sh", "-c", look).Stdout; now != users || strings.Contains(now, "bob") {
		t.Errorf("users in the image:\n%s\nafter the rollback:\n%s", users, now)
	}
	if text := h.Must(t, "sh", "-c", "ls -l /etc/shadow /etc/shadow-; useradd new; getent passwd new"); !strings.Contains(
		text, "new:x:") {
		t.Errorf("no user can be added: %s", text)
	}
	h.Must(t, "sh", "-ec", `userdel new; echo alice:third | chpasswd`)
	users = h.Run(t.Context(), "sh", "-c", look).Stdout
	s.switches("rollback", s.roots["1"])
	s.runs(s.roots["1"], "1")
	if now := h.Run(t.Context(), "sh", "-c", look).Stdout; now != users {
		t.Errorf("users of the host root:\n%s\nin the image:\n%s", users, now)
	}
}
