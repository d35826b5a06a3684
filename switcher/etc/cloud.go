package etc

import (
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// cloud-init sets a host up when it sees an instance for the first time: it deletes the SSH host keys, makes users and
// writes the network's configuration. It knows the instance by what it left in cloudState, and finds it out by the
// configuration in cloudConfig. So that one is the host's as a whole, and a host that was never set up by cloud-init is
// not set up by the one in an image.
const (
	cloudState    = "/var/lib/cloud"
	cloudConfig   = "cloud"
	cloudMain     = cloudConfig + "/cloud.cfg"
	cloudDisabled = cloudConfig + "/cloud-init.disabled"
)

// InstanceFile is the file by which cloud-init knows that it has set up this host.
const InstanceFile = cloudState + "/data/instance-id"

// isInstance reports whether cloud-init has set up the host at tree, and the next root will know it. With no kept state
// given, only the tree counts.
func isInstance(tree string, kept []string) bool {
	isKept := len(kept) == 0 || slices.ContainsFunc(kept, func(k string) bool { return paths.IsUnder(cloudState, k) })
	return isKept && rootfs.Dir(tree).Exists(InstanceFile)
}

// disableCloud switches off a cloud-init that comes with the image to a host that it would take for a new instance.
func (out *outcome) disableCloud(o, x listing.Tree) {
	if !x.Has(cloudMain) || o.Has(cloudMain) || out.paths[cloudDisabled].side != nowhere {
		return
	}
	out.makeDir(cloudConfig)
	out.paths[cloudDisabled] = madeFile([]byte{})
	out.report.Added = append(out.report.Added, cloudDisabled)
	out.report.note(cloudDisabled + ": made, since cloud-init has not set up this host and would take it for a new one")
}
