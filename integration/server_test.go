//go:build lab

package integration

import (
	"maps"
	"slices"
	"strings"
)

// furnishMore adds to furnish what administrators of ordinary servers do besides: keys, jobs, a certificate authority,
// another editor, and a directory that is mounted from the host's own root.
const furnishMore = `
mkdir -p /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
for u in ansible jdoe legacy alice; do
	h=$(getent passwd $u | cut -d: -f6); mkdir -p $h/.ssh; cp /root/.ssh/id_ed25519.pub $h/.ssh/authorized_keys
	chown -R $u: $h/.ssh; chmod -R go= $h/.ssh
done
echo 'hello from alice' >/home/alice/secret; chown alice:docker /home/alice/secret; chmod 640 /home/alice/secret
su alice -c "echo '5 4 * * * true' | crontab -"
loginctl enable-linger jdoe
openssl req -x509 -newkey rsa:2048 -nodes -subj '/CN=Lab CA' -days 3650 -keyout /root/ca.key -out /root/lab.crt \
	2>/dev/null
cp /root/lab.crt /usr/local/share/ca-certificates/; update-ca-certificates >/dev/null
update-alternatives --set editor /usr/bin/vim.tiny >/dev/null
mkdir -p /opt/data /srv/data; echo data >/opt/data/file; echo '/opt/data /srv/data none bind' >>/etc/fstab
systemctl daemon-reload; systemctl start srv-data.mount
redis-cli set visits 7 >/dev/null
`

// serverTable lists what an administrator looks at before and after a switch. Each command prints the same in every
// root.
var serverTable = map[string]string{
	"accounts":       `getent passwd ansible jdoe legacy alice git; getent group docker sudo`,
	"password hash":  `getent shadow ansible jdoe legacy | cut -d: -f1,2`,
	"other groups":   `for u in ansible jdoe alice; do id -nG $u; done`,
	"su":             `su -c 'echo here' legacy`,
	"keys of others": `cat /etc/ssh/keys/git`,
	"logins": `for u in ansible jdoe legacy alice; do
ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR -p 2222 $u@127.0.0.1 'id -un; id -Gn'; done`,
	"logins by password": `ssh -o BatchMode=yes -o PubkeyAuthentication=no -o StrictHostKeyChecking=no \
-p 2222 jdoe@127.0.0.1 true 2>&1 | grep -o 'Permission denied.*'`,
	"host keys": `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`,
	// OpenSSH 10.3 prints the names of options in mixed case.
	"sshd":    `sshd -T | tr A-Z a-z | grep -E '^(port|passwordauth|authorizedkeysfile)'`,
	"sudo":    `for u in ansible jdoe legacy; do sudo -l -U $u | tail -1; done`,
	"ports":   `ss -ltnH | awk '{print $4}' | grep -E ':(2222|80|6379)$' | sort -u`,
	"crontab": `crontab -l -u alice`,
	"a job is edited": `su alice -c "crontab -l | crontab -"; stat -c '%U:%G %A' /var/spool/cron/crontabs/alice
stat -c '%U:%G %A' /var/spool/cron/crontabs`,
	"files of people":   `cd /home; stat -c '%U:%G %A %n' * */.ssh alice/secret; cat alice/secret`,
	"files of services": `stat -c '%U:%G %A %n' /var/lib/redis /var/lib/git`,
	"redis":             `redis-cli get visits`,
	"bind mount":        `cat /srv/data/file`,
	"kept directory":    `ls -s /data/db/1`,
	"local authority": `openssl verify -CApath /etc/ssl/certs /root/lab.crt
openssl verify -no-CApath -CAfile /etc/ssl/certs/ca-certificates.crt /root/lab.crt`,
	"editor":       `readlink -f /usr/bin/editor`,
	"network":      `ip -o -4 addr show scope global | awk '{print $2, $4}'; ip route | sort; ls /etc/systemd/network`,
	"manager":      `networkctl list --no-legend | awk '{print $2, $5}' | sort`,
	"rules":        `cat /etc/nftables.conf`,
	"lingering":    `systemctl is-active user@$(id -u jdoe).service; loginctl show-user jdoe -p Linger`,
	"agent":        `systemctl is-active site-agent.service`,
	"failed units": `systemctl --failed --plain --no-legend`,
	"names":        `getent hosts localhost; hostname; cat /etc/machine-id`,
}

// ofCron are the rows about jobs: the second image has no cron.
var ofCron = []string{"crontab", "a job is edited"}

// setID prints every file that runs with the rights of another user or group, with their names.
const setID = `find /usr -xdev -perm /6000 -type f -printf '%p %M %u:%g\n' | sort`

// view is what a person sees of a server.
type view struct {
	rows   map[string]string
	owners map[string]string // of set-id files
}

func (s *site) look() view {
	s.Helper()
	v := view{rows: map[string]string{}, owners: map[string]string{}}
	for row, command := range serverTable {
		v.rows[row] = s.host.Must(s.T, "sh", "-c", "{ "+command+"\n} 2>&1 || :")
	}
	for line := range strings.Lines(s.host.Must(s.T, "sh", "-c", setID)) {
		path, owners, _ := strings.Cut(strings.TrimSpace(line), " ")
		v.owners[path] = owners
	}
	return v
}

// isAs compares what is seen now with what was seen before, without some rows.
func (s *site) isAs(before view, where string, without ...string) {
	s.Helper()
	now := s.look()
	for _, row := range slices.Sorted(maps.Keys(before.rows)) {
		if now.rows[row] != before.rows[row] && !slices.Contains(without, row) {
			s.Errorf("%s, %s: was\n%s\nis\n%s", where, row, before.rows[row], now.rows[row])
		}
	}
	for path, owners := range now.owners {
		if was, known := before.owners[path]; known && was != owners {
			s.Errorf("%s: %s was %s, is %s", where, path, was, owners)
		}
	}
}
