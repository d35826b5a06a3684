package level

import (
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// diskPackages are the Debian packages with the tools of each layer.
var diskPackages = map[rootfs.DiskLayer]string{
	rootfs.LayerLVM: "lvm2", rootfs.LayerRAID: "mdadm", rootfs.LayerMultipath: "multipath-tools",
	rootfs.LayerCrypt: "cryptsetup",
}

// judgeDiskTools judges a root by the tools for the disks that are mounted. The host root sets the disks up at every
// full reboot, and their names are kept without tools. But only multipathd(8) takes a path that is back into use again.
func judgeDiskTools(f facts.Facts, t Target) (Verdict, string) {
	if t.Root == switcher.HostRoot || len(f.DiskLayers) == 0 {
		return "", ""
	}
	var lacking, packages []string
	verdict := VerdictNote
	for _, layer := range f.DiskLayers {
		if slices.Contains(t.DiskLayers, layer) {
			continue
		}
		lacking, packages = append(lacking, string(layer)), append(packages, diskPackages[layer])
		if layer == rootfs.LayerMultipath {
			verdict = VerdictRefuse
		}
	}
	names := strings.Join(lacking, " and ")
	switch {
	case len(lacking) == 0:
		return VerdictOK, "the image has the tools for the disks of this host"
	case verdict == VerdictRefuse:
		return verdict, fmt.Sprintf("the disks of this host use %s, and the image lacks the tools (package %s): "+
			"failed paths would stay unused", names, strings.Join(packages, ", "))
	}
	return verdict, fmt.Sprintf("the disks of this host use %s, and the image lacks the tools (package %s): they stay "+
		"mounted, and cannot be changed or watched", names, strings.Join(packages, ", "))
}
