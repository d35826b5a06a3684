package adoption

import (
	"path"
	"slices"
	"strings"
)

// The groups of a report.
const (
	people   = "people"
	access   = "access"
	network  = "network"
	disks    = "disks"
	services = "services"
	files    = "files"
)

// GroupNames are the names of all groups, in the order of a report.
var GroupNames = []string{people, access, network, disks, services, files}

// places says which group a path below /etc belongs to, by the beginning of the path; the first one counts.
var places = []struct {
	group    string
	patterns []string
}{
	{people, []string{"passwd*", "group*", "shadow*", "gshadow*", "subuid*", "subgid*", "sudoers*", "doas.conf",
		"polkit-1", "cron.allow", "cron.deny", "at.allow", "at.deny", "shells", "login.defs"}},
	{access, []string{"ssh", "pam.d", "security", "authselect", "nsswitch.conf", "sssd", "krb5*", "ldap", "nslcd.conf",
		"hosts.allow", "hosts.deny", "nftables*", "ufw", "default/ufw", "firewalld", "iptables", "sysconfig/*tables*",
		"ssl/private", "pki/tls/private"}},
	{network, []string{"network", "netplan", "systemd/network*", "systemd/resolved.conf*", "NetworkManager",
		"sysconfig/network*", "dhcp*", "wpa_supplicant", "wireguard", "resolv.conf", "hosts", "hostname"}},
	{disks, []string{"fstab", "crypttab", "cryptsetup-keys.d", "mdadm*", "lvm", "multipath*", "iscsi", "nvme",
		"systemd/system/*.mount*", "systemd/system/*.automount*", "systemd/system/*.swap*", "systemd/system/*/*.mount",
		"systemd/system/*/*.automount", "systemd/system/*/*.swap"}},
	{services, []string{"systemd/system", "init.d", "rc?.d", "default", "cron*", "anacrontab"}},
}

// groupOf returns the group of a path below /etc, relative to it.
func groupOf(name string) string {
	for _, place := range places {
		for p := strings.TrimSuffix(name, "/"); p != "."; p = path.Dir(p) {
			if slices.ContainsFunc(place.patterns, func(pattern string) bool { ok, _ := path.Match(pattern, p); return ok }) {
				return place.group
			}
		}
	}
	return files
}

// groupOfNote returns the group of a sentence that begins with what it is about.
func groupOfNote(note string) string {
	about, _, _ := strings.Cut(note, ":")
	switch {
	case strings.HasPrefix(about, "/"), strings.Contains(note, "mounts below the state"):
		return disks
	case strings.ContainsRune(about, ' '):
		return files
	}
	return groupOf(about)
}

// builder collects the groups of a report.
type builder map[string]*Group

func newBuilder() builder {
	b := builder{}
	for _, name := range GroupNames {
		b[name] = &Group{Name: name, Comes: []string{}, Changes: []string{}, Stays: []Stay{}}
	}
	return b
}

func (b builder) comes(group, what string)     { b[group].Comes = append(b[group].Comes, what) }
func (b builder) changes(group, change string) { b[group].Changes = append(b[group].Changes, change) }
func (b builder) stays(group string, s Stay)   { b[group].Stays = append(b[group].Stays, s) }

// groups returns the collected groups in their order.
func (b builder) groups() []Group {
	var all []Group
	for _, name := range GroupNames {
		all = append(all, *b[name])
	}
	return all
}
