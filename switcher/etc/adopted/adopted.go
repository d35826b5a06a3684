// Package adopted answers what a host that runs no image keeps of its /etc: its identity, and whatever it needs to be
// reached and to fetch its next image.
package adopted

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// Default lists what the first image root takes over from the host root: its identity, its network, who may log in and
// from where, and what it needs to mount its disks and to fetch its next image. The configuration of services comes
// from the image. User databases are always merged by entry and need no line here.
var Default = []string{
	// Identity. Without the configuration of cloud-init, the image's could take the host for a new instance.
	"machine-id", "hostid", "hostname", "hosts", "cloud",
	// Network.
	"network", "netplan", "systemd/network", "systemd/networkd.conf*", "systemd/resolved.conf*",
	"NetworkManager/system-connections", "NetworkManager/NetworkManager.conf", "NetworkManager/conf.d",
	"sysconfig/network", "sysconfig/network-scripts", "dhcpcd.conf", "wpa_supplicant", "wireguard", "resolv.conf",
	// Which network managers and packet filters start, and how people are looked up.
	"systemd/system/*.wants/systemd-networkd*", "systemd/system/dbus-org.freedesktop.network1.service",
	"systemd/system/*.wants/NetworkManager*", "systemd/system/*.wants/networking.service",
	"systemd/system/*.wants/nftables.service", "systemd/system/*.wants/ufw.service",
	"systemd/system/*.wants/firewalld.service", "systemd/system/*.wants/netfilter-persistent.service",
	"systemd/system/*.wants/iptables.service", "systemd/system/*.wants/ip6tables.service",
	"systemd/system/*.wants/wg-quick@*", "systemd/system/*.wants/sssd*", "systemd/system/*.wants/nslcd.service",
	// Locale, time zone, keyboard, hardware clock.
	"localtime", "timezone", "adjtime", "locale.conf", "locale.gen", "default/locale",
	"vconsole.conf", "default/keyboard",
	// Who may log in, how, and from where. Files that sshd_config names are adopted with it.
	"ssh/ssh_host_*", "ssh/sshd_config", "ssh/sshd_config.d", "pam.d", "security", "authselect", "nsswitch.conf",
	"login.defs",
	"sssd", "krb5.conf", "krb5.conf.d", "krb5.keytab", "ldap", "nslcd.conf", "hosts.allow", "hosts.deny",
	"nftables.conf", "nftables", "ufw", "default/ufw", "firewalld", "iptables",
	"sysconfig/iptables", "sysconfig/ip6tables", "sysconfig/nftables.conf",
	// People's rights.
	"sudoers", "sudoers.d", "doas.conf", "polkit-1", "cron.allow", "cron.deny", "at.allow", "at.deny",
	// Keys that certificates were issued for, and whom this host trusts besides the image's authorities.
	"ssl/private", "pki/tls/private", "pki/ca-trust/source", "ca-certificates/trust-source",
	// Disks: without these the lines of fstab find nothing to mount.
	"fstab", "crypttab", "cryptsetup-keys.d", "mdadm", "mdadm.conf", "lvm/devices", "lvm/lvm.conf", "lvm/lvmlocal.conf",
	"multipath.conf", "multipath", "iscsi", "nvme",
	"systemd/system/*.mount", "systemd/system/*.mount.d", "systemd/system/*.wants/*.mount",
	"systemd/system/*.requires/*.mount",
	"systemd/system/*.automount", "systemd/system/*.automount.d", "systemd/system/*.wants/*.automount",
	"systemd/system/*.requires/*.automount",
	"systemd/system/*.swap", "systemd/system/*.swap.d", "systemd/system/*.wants/*.swap",
	"systemd/system/*.requires/*.swap",
	// The agent, and the credentials and certificates that it fetches with.
	"updatectl", "containers/auth.json", "containers/certs.d", "docker/certs.d",
	"systemd/system/updatectl*", "systemd/system/*.wants/updatectl*",
}

// ErrPattern is returned for an entry of [state] adopt that is not a path or glob below /etc: a mistake in the
// configuration.
var ErrPattern = errors.New("not a path or glob below /etc")

// Parse checks patterns, which may begin with /etc/. The error is an ErrPattern.
func Parse(patterns []string) (paths.List, error) {
	var list paths.List
	for _, p := range patterns {
		rel := strings.TrimPrefix(p, "/etc/")
		_, err := path.Match(rel, "")
		if err != nil || rel == "" || strings.HasPrefix(rel, "/") || slices.Contains(strings.Split(rel, "/"), "..") {
			return nil, fmt.Errorf("cannot adopt %q: %w", p, ErrPattern)
		}
		list = append(list, path.Clean(rel))
	}
	return list, nil
}
