//go:build lab

package integration

import (
	"strings"
	"testing"
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
`

// TestOrdinaryServer: neither the first image nor the second locks anybody out of an ordinary server. Who could log in
// still can, by the same rules, and plan has named the others.
func TestOrdinaryServer(t *testing.T) {
	s := newSite(t, "ordinary")
	h := s.host
	h.Must(t, "sh", "-ec", furnish)
	look := `getent passwd ansible jdoe legacy alice git; id -nG ansible; id -nG jdoe; id -nG alice
getent shadow ansible jdoe legacy | cut -d: -f1,2; getent group docker
sudo -l -U ansible | tail -1; sudo -l -U jdoe | tail -1; cat /etc/ssh/keys/git /etc/nftables.conf
stat -c '%U:%G %n' /home/* /var/lib/git; su -c 'echo here' legacy
sshd -T | grep -E '^(port|passwordauth|authorizedkeysfile)'
ss -ltnH | grep -o ':2222' | sort -u
ls /etc/systemd/network`
	before := h.Must(t, "sh", "-c", look)
	if !strings.Contains(before, "NOPASSWD") || !strings.Contains(before, ":2222") {
		t.Fatalf("the host is not furnished:\n%s", before)
	}
	s.updatectl(exitAvailable, "stage")

	// A way in that needs what the image lacks is a refusal, and no surprise.
	h.Must(t, "sh", "-ec", `d=$(dirname /usr/lib/*/security/pam_unix.so); cp $d/pam_unix.so $d/pam_lab.so
sed -i '1i auth sufficient pam_lab.so' /etc/pam.d/sshd`)
	if r := s.updatectl(exitIncompatible, "plan"); !strings.Contains(r.Stdout,
		"the image lacks pam_lab.so, which /etc/pam.d/sshd names") {
		t.Errorf("the plan does not name the module that is missing: %s", r.Stdout)
	}
	s.refused(exitIncompatible, "the image lacks pam_lab.so", "", "apply")
	h.Must(t, "sed", "-i", "/pam_lab/d", "/etc/pam.d/sshd")

	r := s.updatectl(exitAvailable, "plan")
	if !strings.Contains(r.Stdout, "exporter (962)") || strings.Contains(r.Stdout, "ansible (960)") {
		t.Errorf("the plan does not list who is left behind: %s", r.Stdout)
	}
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	if after := h.Must(t, "sh", "-c", look); after != before {
		t.Errorf("before the first image:\n%s\nafter it:\n%s", before, after)
	}
	h.Must(t, "sh", "-ec", `test -e /run/crond.reboot # only the second image has no cron
echo '@reboot date >> /home/alice/reboot.log' | crontab -u alice -`)

	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	if after := h.Must(t, "sh", "-c", look); after != before {
		t.Errorf("before the first image:\n%s\nafter the second one:\n%s", before, after)
	}

	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	ran := func() bool { return h.Run(t.Context(), "test", "-s", "/home/alice/reboot.log").Code == 0 }
	if !h.Await(t, h.Patience(), ran) {
		t.Error("cron did not run alice's @reboot job in the root that the host rolled back to")
	}
}
