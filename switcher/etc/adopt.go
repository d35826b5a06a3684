package etc

import (
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/needs"
	"github.com/updatectl/updatectl/switcher/etc/paths"
)

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
