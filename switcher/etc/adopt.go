package etc

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/needs"
	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// DefaultAdopt lists what the first image root takes over from the host root: its identity, its network, who may log in
// and from where, and what it needs to mount its disks and to fetch its next image. The configuration of services comes
// from the image. User databases are always merged by entry and need no line here.
var DefaultAdopt = []string{
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

// whole are groups of paths in which files of two systems do not mix: an image's 10-dhcp.network would beat the host's
// 50-static.network, its sshd_config.d could allow passwords again, its cloud.cfg.d could look for another instance. If
// the host has a file in one of a group's paths, the image's files in all of them do not come.
var whole = []struct {
	paths paths.List
	local func(host snapshot, name string) bool // whether a file is such configuration; nil: every file is
}{
	{networkDirs, configuresNetwork},
	{paths.List{"ssh/sshd_config", "ssh/sshd_config.d"}, nil},
	{paths.List{"nftables.conf", "nftables", "ufw", "firewalld", "iptables", "sysconfig/iptables", "sysconfig/ip6tables",
		"sysconfig/nftables.conf"}, nil},
	{paths.List{cloudConfig}, nil},
}

// networkDirs are where network managers look for what they configure.
var networkDirs = append(slices.Clone(needs.NetworkDirs), "sysconfig/network-scripts")

// leaveOutNetwork removes the files from a new image that configure a network, if they were not in the old one and the
// host has a configuration of its own. They would mix with it, and could win.
func leaveOutNetwork(o, c, x listing.Tree, rep *Report) {
	local := false
	for name, e := range c {
		local = local || e.Kind != listing.Dir && networkDirs.Has(name) && !listing.Same(e, o[name], true, o.Has(name))
	}
	for name, e := range x {
		if local && e.Kind != listing.Dir && networkDirs.Has(name) && !o.Has(name) && !c.Has(name) {
			delete(x, name)
			rep.conflict(name, "added by the image; left out, the network of this host is configured here")
		}
	}
}

// notFromImage returns the paths that only the image has and that must not come, because the host brings its own.
func notFromImage(cur, next snapshot, adopt paths.List) map[string]bool {
	out := map[string]bool{}
	for _, group := range whole {
		local := false
		for name, e := range cur.Tree {
			counts := group.local == nil || group.local(cur, name)
			local = local || e.Kind != listing.Dir && group.paths.Has(name) && adopt.Has(name) && counts
		}
		for name := range next.Tree {
			if local && group.paths.Has(name) && !cur.Tree.Has(name) {
				out[name] = true
			}
		}
	}
	return out
}

// configuresNetwork reports whether a file in a directory of a network manager configures more than the loopback
// interface.
func configuresNetwork(host snapshot, name string) bool {
	return name != needs.Interfaces || needs.ConfiguresInterface(host.text[name])
}

// ErrPattern is returned for an entry of [Inputs.Adopt] that is not a path or glob below /etc: a mistake in the
// configuration.
var ErrPattern = errors.New("not a path or glob below /etc")

// newAdoptList checks patterns, which may begin with /etc/. The error is an ErrPattern.
func newAdoptList(patterns []string) (paths.List, error) {
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

// hostBase returns an invented old image for a host root, which makes adopting the same three-way merge: what is left
// behind counts as the old image's (unchanged, so the new image replaces it), what is adopted counts as local.
func hostBase(cur, next snapshot, adopt paths.List) snapshot {
	base := snapshot{Directory: listing.Directory{Tree: listing.Tree{}},
		tables: accounts.HostBase(cur.tables, next.tables, cur.access, next.shells)}
	for name, e := range cur.Tree {
		if !adopt.Has(name) || fstab.NeverCarried.Has(name) {
			base.Tree[name] = e
		}
	}
	for name := range notFromImage(cur, next, adopt) {
		base.Tree[name] = next.Tree[name] // counts as removed on the host
	}
	return base
}
