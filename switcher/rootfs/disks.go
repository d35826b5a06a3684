package rootfs

import "slices"

// DiskLayer is what lies between a file system and its disks, by its name in the field.
type DiskLayer string

// The layers that need tools.
const (
	LayerLVM       DiskLayer = "LVM"
	LayerRAID      DiskLayer = "RAID"
	LayerMultipath DiskLayer = "multipath"
	LayerCrypt     DiskLayer = "LUKS"
)

// diskTools are the programs without which a root cannot look after a layer.
var diskTools = []struct {
	layer    DiskLayer
	programs []string
}{
	{LayerLVM, []string{"/usr/sbin/lvm", "/usr/bin/lvm"}},
	{LayerRAID, []string{"/usr/sbin/mdadm", "/usr/bin/mdadm"}},
	{LayerMultipath, []string{"/usr/sbin/multipathd", "/usr/bin/multipathd"}},
	{LayerCrypt, []string{"/usr/sbin/cryptsetup", "/usr/bin/cryptsetup"}},
}

// diskLayers returns the layers that a root has the tools for.
func (t Dir) diskLayers() []DiskLayer {
	var layers []DiskLayer
	for _, tools := range diskTools {
		if slices.ContainsFunc(tools.programs, t.Exists) {
			layers = append(layers, tools.layer)
		}
	}
	return layers
}
