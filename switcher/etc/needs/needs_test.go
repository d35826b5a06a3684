package needs

import (
	"slices"
	"strings"
	"testing"
)

// having returns an inventory of these things.
func having(things ...string) inventory {
	return func(what string) bool { return slices.Contains(things, what) }
}

func TestLacking(t *testing.T) {
	everything := func(string) bool { return true }
	for _, test := range []struct {
		name  string
		texts map[string]string
		units []string
		host  inventory // nil has everything
		image []string
		want  []string
	}{
		{name: "nothing"},
		{
			name: "modules of PAM",
			texts: map[string]string{"pam.d/common-auth": strings.Join([]string{
				"# auth required pam_comment.so", "", "auth\t[success=1 default=ignore]\tpam_unix.so nullok",
				"@include common-account",
				"auth [success=1 default=ignore] pam_sss.so use_first_pass", "-auth required pam_maybe.so",
				"auth optional pam_cap.so", "auth include system-auth", "auth substack postlogin", `auth \`,
				" required \\", " /usr/lib/security/pam_two.so # both lines", "auth required", "auth required pam_sss.so",
			}, "\n")},
			image: []string{"pam_unix.so"},
			want:  []string{"pam_sss.so", "pam_two.so"},
		},
		{
			name: "sources of names",
			texts: map[string]string{"nsswitch.conf": "# passwd: nis\npasswd: files systemd sss [NOTFOUND=return] ldap\n" +
				"group:files\tsss\nhosts: files resolve [!UNAVAIL=return] dns\nsudoers: files sss\nnetgroup: nis\nbroken\n"},
			host: having("libnss_sss.so.2", "libnss_ldap.so.2", "libnss_systemd.so.2"),
			want: []string{"libnss_sss.so.2", "libnss_ldap.so.2"},
		},
		{
			name: "programs of sshd",
			texts: map[string]string{
				"ssh/sshd_config": "#AuthorizedKeysCommand /usr/bin/commented\nSubsystem sftp internal-sftp\n" +
					"authorizedkeyscommand=\"/usr/bin/keys\" %u\nAuthorizedPrincipalsCommand none\n",
				"ssh/sshd_config.d/a.conf": "Subsystem\tsftp /usr/lib/openssh/sftp-server -f AUTHPRIV\n",
			},
			want: []string{"/usr/bin/keys", "/usr/lib/openssh/sftp-server"},
		},
		{
			name: "units", units: []string{"nftables.service", "wg-quick@wg0.service"},
			image: []string{"wg-quick@wg0.service"}, want: []string{"nftables.service"},
		},
		{name: "a network manager", texts: map[string]string{"netplan/a.yaml": ""}, want: []string{"/usr/sbin/netplan"}},
		{
			name:  "another network manager is enough",
			texts: map[string]string{"netplan/a.yaml": "", "systemd/network/a.network": ""},
			image: []string{"systemd-networkd.service"},
		},
		{
			name:  "the loopback interface needs no ifupdown",
			texts: map[string]string{"network/interfaces": "auto lo\niface lo inet loopback\n"},
		},
		{name: "ifupdown", texts: map[string]string{"network/interfaces": "iface a inet dhcp\n"},
			want: []string{"/usr/sbin/ifup"}},
		{
			name: "what the host lacks does not count", host: having(), units: []string{"ufw.service"},
			texts: map[string]string{"pam.d/a": "auth required pam_a.so\n", "netplan/a.yaml": "",
				"nsswitch.conf": "passwd: nis\n"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			texts := map[string][]byte{}
			for file, text := range test.texts {
				texts[file] = []byte(text)
			}
			if test.host == nil {
				test.host = everything
			}
			var got []string
			for _, n := range lacking(texts, test.units, test.host, having(test.image...)) {
				got = append(got, n.what)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
