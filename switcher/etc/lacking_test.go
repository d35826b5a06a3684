package etc

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestLackingOnDisk: the host's files that would stay are judged, against what the image's tree has.
func TestLackingOnDisk(t *testing.T) {
	const security = "usr/lib/x86_64-linux-gnu/security/"
	host := hostTree(t, "debian", map[string]string{
		security + "pam_unix.so": "", security + "pam_sss.so": "", "usr/lib/x86_64-linux-gnu/libnss_sss.so.2": "",
		"usr/bin/keys": "", "usr/sbin/sshd": "", "usr/lib/systemd/system/nftables.service": "",
		"usr/lib/systemd/system/systemd-networkd.service": "", security + "pam_kwallet.so": "",
		"etc/pam.d/sshd": "@include common-auth\n", "etc/pam.d/common-auth": "auth sufficient pam_sss.so\n",
		"etc/pam.d/lightdm": "auth required pam_kwallet.so\n", "etc/nsswitch.conf": "passwd: files sss\n",
		"etc/ssh/sshd_config":                                      "AuthorizedKeysCommand /usr/bin/keys\n",
		"etc/systemd/network/a.network":                            "[Match]\nName=e*\n",
		"var/lib/dpkg/info/libpam-sss.list":                        "/.\n/usr/lib/x86_64-linux-gnu/security/pam_sss.so\n",
		"etc/systemd/system/sysinit.target.wants/nftables.service": "-> /usr/lib/systemd/system/nftables.service",
	})
	image := hostTree(t, "image", map[string]string{
		security + "pam_unix.so": "", "usr/sbin/sshd": "",
		"etc/pam.d/sshd": "@include common-auth\n", "etc/pam.d/common-auth": "auth required pam_unix.so\n",
		"etc/nsswitch.conf": "passwd: files\n",
	})
	in := Inputs{Host: host, Current: host + "/etc", Next: image + "/etc"}
	got, err := Lacking(in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"libnss_sss.so.2, which /etc/nsswitch.conf names",
		"pam_sss.so, which /etc/pam.d/common-auth names (package libpam-sss)",
		"/usr/bin/keys, which /etc/ssh/sshd_config names",
		"nftables.service, which this host starts",
		"systemd-networkd.service, which /etc/systemd/network/a.network names",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, name := range []string{"usr/lib/x86_64-linux-gnu/libnss_sss.so.2", security + "pam_sss.so", "usr/bin/keys",
		"usr/lib/systemd/system/nftables.service", "usr/lib/systemd/system/systemd-networkd.service"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(image, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(image, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Lacking(in); err != nil || len(got) > 0 {
		t.Errorf("an image that has everything lacks %q, %v", got, err)
	}
	if _, err := Lacking(Inputs{Current: host + "/none", Next: image + "/etc"}); err == nil {
		t.Error("no error without an /etc")
	}
}
