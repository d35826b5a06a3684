package sshd

import (
	"path"
	"strings"
	"testing"
)

// FuzzParse: whatever a host's sshd_config says, what is taken over lies below /etc, and what runs has a path.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"Subsystem sftp /usr/lib/openssh/sftp-server -f AUTH\n", "AuthorizedKeysFile .ssh/a /etc/ssh/keys/%u\n",
		"HostKey=\"/etc/ssh/../shadow\"\nTrustedUserCAKeys /etc/ssh/[\n", "Match User a\n AuthorizedKeysCommand /x\n",
		"Subsystem x\nBanner /etc/\n#\n=\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Parse(text, text)
		for _, p := range c.Adopted() {
			if p == "" || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") {
				t.Errorf("%q is taken over", p)
			}
		}
		for _, p := range c.Runs {
			if !path.IsAbs(p) {
				t.Errorf("%q is run", p)
			}
		}
		if len(c.KeyFiles()) == 0 {
			t.Error("keys are nowhere looked for")
		}
	})
}
