package etc

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// DefaultAdopt lists what the first image root takes over from the host root: its identity, its network, who may log
// in, and what it needs to mount its disks and to fetch its next image. The configuration of services comes from the
// image. User databases are always merged by entry and need no line here.
var DefaultAdopt = []string{
	// Identity.
	"machine-id", "hostid", "hostname", "hosts",
	"ssh/ssh_host_*", "ssh/sshd_config.d/*",
	"iscsi/initiatorname.iscsi", "nvme/hostid", "nvme/hostnqn",
	// Network.
	"network", "netplan", "systemd/network", "NetworkManager/system-connections",
	"wpa_supplicant", "resolv.conf",
	// Locale, time zone, keyboard, hardware clock.
	"localtime", "timezone", "adjtime", "locale.conf", "locale.gen", "default/locale",
	"vconsole.conf", "default/keyboard",
	// People's rights.
	"sudoers", "sudoers.d",
	// Disks: without these the lines of fstab find nothing to mount.
	"fstab", "crypttab", "cryptsetup-keys.d", "mdadm",
	// The agent, and the credentials and certificates that it fetches with.
	"updatectl", "containers/auth.json", "containers/certs.d", "docker/certs.d",
	"systemd/system/updatectl*", "systemd/system/*.wants/updatectl*",
}

// ErrPattern is returned for an entry of [Inputs.Adopt] that is not a path or glob below /etc: a mistake in the
// configuration.
var ErrPattern = errors.New("not a path or glob below /etc")

// adoptList is a list of patterns that newAdoptList has checked.
type adoptList []string

// newAdoptList checks patterns, which may begin with /etc/. The error is an ErrPattern.
func newAdoptList(patterns []string) (adoptList, error) {
	var list adoptList
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

// has reports whether a path, or a directory above it, matches the list.
func (l adoptList) has(name string) bool {
	for ; name != "."; name = path.Dir(name) {
		for _, pattern := range l {
			if ok, _ := path.Match(pattern, name); ok { // checked by newAdoptList
				return true
			}
		}
	}
	return false
}

// hostBase returns an invented old image for a host root, which makes adopting the same three-way merge: what is left
// behind counts as the old image's (unchanged, so the new image replaces it), what is adopted counts as local.
func hostBase(cur, next snapshot, adopt adoptList) snapshot {
	base := snapshot{tree: listing{}, tables: accounts.HostBase(cur.tables, next.tables, cur.access, next.shells)}
	for name, e := range cur.tree {
		if !adopt.has(name) {
			base.tree[name] = e
		}
	}
	return base
}
