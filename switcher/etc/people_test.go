package etc

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// hostTree makes the tree of a host with the /etc of a directory below testdata, and with more files. Names that end
// in "/" are directories; those of homes belong to the number that is their content.
func hostTree(t *testing.T, etc string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "etc"), os.DirFS("testdata/"+etc)); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		switch target, link := strings.CutPrefix(files[name], "-> "); {
		case link:
			if err := os.Symlink(target, full); err != nil {
				t.Fatal(err)
			}
		case strings.HasSuffix(name, "/"):
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
		default:
			if err := os.WriteFile(full, []byte(files[name]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// mergedHost returns the names in the merged passwd and group of a host that gets its first image, with the text of
// both, and the report.
func mergedHost(t *testing.T, host string) (passwd, group string, rep Report) {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "etc")
	in := Inputs{Current: host + "/etc", Next: "testdata/image", Host: host}
	rep, err := Merge(in, dst)
	if err != nil {
		t.Fatal(err)
	}
	return read1(t, dst+"/passwd"), read1(t, dst+"/group"), rep
}

// names returns the first fields of lines.
func names(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, ":")
		all = append(all, name)
	}
	return all
}

func accountNames(list []accounts.Account) []string {
	var all []string
	for _, a := range list {
		all = append(all, a.Name)
	}
	return all
}

// debianHost is what an ordinary server has beside its user databases.
var debianHost = map[string]string{
	"etc/sudoers": "# a comment\n#includedir /etc/sudoers.d\nDefaults secure_path=\"/usr/bin\"\n" +
		"root ALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
	"etc/sudoers.d/ansible":             "ansible ALL=(ALL) NOPASSWD:ALL\n",
	"etc/sudoers.d/monitor":             "monitor ALL=(root) NOPASSWD: /usr/bin/smartctl\n%ops ALL = (root) /usr/bin/ss\n",
	"etc/sudoers.d/README.bak":          "prometheus ALL=(ALL) ALL\n",
	"srv/git/.ssh/authorized_keys":      "ssh-ed25519 AAAA git\n",
	"var/spool/cron/crontabs/deploy":    "* * * * * true\n",
	"var/spool/cron/crontabs/root":      "* * * * * true\n",
	"home/alice/":                       "",
	"var/lib/prometheus/.ssh/":          "",
	"var/lib/postgresql/17/main/x.conf": "",
}

// TestOrdinaryServerLocksNobodyOut: who stays is decided by what an account is for, and what goes is listed.
func TestOrdinaryServerLocksNobodyOut(t *testing.T) {
	host := hostTree(t, "debian", debianHost)
	passwd, group, rep := mergedHost(t, host)
	for name, why := range map[string]string{
		"alice": "a person", "jdoe": "a password and sudo, with a number beyond login.defs", "oldboy": "a password",
		"ansible": "sudo", "git": "keys", "deploy": "a crontab", "monitor": "named in sudoers", "telegraf": "in docker",
	} {
		if !slices.Contains(names(passwd), name) {
			t.Errorf("%s is gone, and had %s", name, why)
		}
		if !slices.Contains(names(group), name) {
			t.Errorf("the group of %s is gone", name)
		}
	}
	for _, line := range []string{
		"sudo:x:27:ansible,jdoe,ldapadmin\n", "docker:x:997:alice,telegraf\n", "adm:x:4:alice\n", "ops:x:988:\n",
		"ansible:x:960:\n", "crontab:x:850:\n",
	} {
		if !strings.Contains(group, line) {
			t.Errorf("group has no line %q:\n%s", line, group)
		}
	}
	if want := []string{"polkitd", "postgres", "prometheus"}; !slices.Equal(accountNames(rep.NotAdopted.Users), want) {
		t.Errorf("left behind: %v, want %v", rep.NotAdopted.Users, want)
	}
	want := []string{"polkitd", "postgres", "prometheus", "ssl-cert"}
	if !slices.Equal(accountNames(rep.NotAdopted.Groups), want) {
		t.Errorf("left behind: %v, want %v", rep.NotAdopted.Groups, want)
	}
	if len(rep.Conflicts) > 3 {
		t.Errorf("conflicts: %v", rep.Conflicts)
	}
}

func TestUbuntuServer(t *testing.T) {
	host := hostTree(t, "ubuntu", map[string]string{
		"etc/sudoers.d/90-cloud-init-users": "ubuntu ALL=(ALL) NOPASSWD:ALL\n",
		"home/ubuntu/":                      "",
	})
	passwd, group, rep := mergedHost(t, host)
	if !slices.Contains(names(passwd), "ubuntu") || !strings.Contains(group, "lxd:x:111:ubuntu\n") {
		t.Errorf("ubuntu is gone, or no longer in lxd:\n%s%s", passwd, group)
	}
	want := []string{"ec2-instance-connect", "fwupd-refresh", "landscape", "lxd", "polkitd", "pollinate",
		"systemd-resolve", "tcpdump", "tss", "usbmux", "uuidd"}
	if !slices.Equal(accountNames(rep.NotAdopted.Users), want) {
		t.Errorf("left behind: %v, want %v", rep.NotAdopted.Users, want)
	}
}

// TestNumbersOfPeopleAreTheHosts: login.defs of the host says who is a person.
func TestNumbersOfPeopleAreTheHosts(t *testing.T) {
	host := hostTree(t, "debian", map[string]string{"etc/login.defs": "UID_MIN 500\nUID_MAX 99999\nGID_MIN\t500\n"})
	text := strings.ReplaceAll(read1(t, host+"/etc/passwd"), "oldboy:x:501:501:,,,:/home/oldboy:/bin/bash",
		"oldboy:x:501:501:,,,:/srv/oldboy:/usr/sbin/nologin")
	if err := os.WriteFile(host+"/etc/passwd", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	passwd, _, rep := mergedHost(t, host)
	if !slices.Contains(names(passwd), "oldboy") {
		t.Errorf("oldboy is no person: %v", rep.NotAdopted.Users)
	}
}

// TestHomesAndKeysAreLookedForInsideTheHost: links lead to places on the host, never out of its tree.
func TestHomesAndKeysAreLookedForInsideTheHost(t *testing.T) {
	outside := hostTree(t, "image", map[string]string{"keys": "ssh-ed25519 AAAA\n"})
	host := hostTree(t, "debian", map[string]string{
		"home":                       "-> /data/home",
		"data/home/prometheus/":      "",
		"etc/ssh/sshd_config":        "Port 22\nMatch User git\n  AuthorizedKeysFile /etc/ssh/keys/%u .ssh/authorized_keys\n",
		"etc/ssh/keys/deploy":        "ssh-ed25519 AAAA\n",
		"etc/ssh/keys/git":           "-> " + outside + "/keys",
		"etc/ssh/keys/monitor":       "",
		"var/spool/cron/crontabs/x/": "",
	})
	if err := os.Chown(host+"/data/home/prometheus", 102, 104); err != nil {
		t.Fatal(err)
	}
	passwd, _, rep := mergedHost(t, host)
	if !slices.Contains(rep.Added, "ssh/keys/") && !slices.Contains(rep.Added, "ssh/") {
		t.Errorf("the keys that sshd_config names are not adopted: %v", rep.Added)
	}
	got := names(passwd)
	for name, want := range map[string]bool{"prometheus": true, "deploy": true, "git": false, "monitor": false} {
		if slices.Contains(got, name) != want {
			t.Errorf("%s stays: %v, want %v", name, !want, want)
		}
	}
}
