package needs

import (
	"path"
	"strings"
	"testing"
)

// FuzzLacking: whatever the files of a host say, what they need are libraries without a directory, or programs and
// units; and a root that has all of it lacks nothing.
func FuzzLacking(f *testing.F) {
	for _, text := range []string{
		"auth required pam_unix.so nullok\n-auth [default=1] pam_x.so\naccount [a=b c=d] /lib/../pam_y.so\n",
		"passwd: files ldap [NOTFOUND=return] sss # x\n:\n", "iface eth0 inet dhcp\niface lo inet loopback\n",
		"passwd: a/../b\n",
		"auth\\\n required pam_a.so\n[\n-\n",
		"AuthorizedKeysCommand /usr/bin/keys %u\nSubsystem sftp internal-sftp\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		texts := map[string][]byte{}
		for _, file := range []string{"pam.d/sshd", "nsswitch.conf", "network/interfaces", "ssh/sshd_config"} {
			texts[file] = text
		}
		all := func(string) bool { return true }
		missing := lacking(texts, nil, all, func(string) bool { return false })
		for _, n := range missing {
			if n.what == "" || texts[n.file] == nil || strings.Contains(n.what, "/") && !path.IsAbs(n.what) {
				t.Errorf("%q needs %q", n.file, n.what)
			}
		}
		if missing := lacking(texts, nil, all, all); len(missing) > 0 {
			t.Errorf("a root that has all lacks %q", missing)
		}
	})
}
