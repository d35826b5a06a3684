package adopted

import (
	"errors"
	"testing"
)

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "/", "/var/lib", "../x", "a/../../b", "[", "/etc/"} {
		if _, err := Parse([]string{bad}); !errors.Is(err, ErrPattern) {
			t.Errorf("%q: %v, want ErrPattern", bad, err)
		}
	}
	list, err := Parse(append([]string{"/etc/nftables.conf", "app/"}, Default...))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"nftables.conf": true, "app/a/b": true, "ssh/ssh_host_rsa_key": true, "ssh/sshd_config.d/10.conf": true,
		"systemd/system/timers.target.wants/updatectl.timer": true,
		"ssh/sshd_config": true, "ssh/moduli": false, "systemd/system/a.service": false, "networks": false,
	} {
		if list.Has(name) != want {
			t.Errorf("%s adopted: %v, want %v", name, !want, want)
		}
	}
}
