package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// mountedLayers returns what lies between the mounted file systems of this machine and its disks. What cannot be read
// is left out.
func mountedLayers() []rootfs.DiskLayer {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil
	}
	var devices []string
	for _, m := range mounts {
		device := fmt.Sprintf("%d:%d", m.Major, m.Minor)
		var st unix.Stat_t
		if m.Major == 0 && strings.HasPrefix(m.Source, "/dev/") && unix.Stat(m.Source, &st) == nil { // as btrfs has it
			device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		devices = append(devices, device)
	}
	return layersOf("/sys/dev/block", devices)
}

// layersOf returns the layers below block devices, each given as MAJOR:MINOR, sorted. dir is where the kernel shows
// these devices.
func layersOf(dir string, devices []string) []rootfs.DiskLayer {
	var layers []rootfs.DiskLayer
	seen := map[string]bool{}
	for len(devices) > 0 {
		device := devices[0]
		devices = devices[1:]
		at := filepath.Join(dir, device)
		if seen[device] {
			continue
		}
		seen[device] = true
		if layer := layerOf(at); layer != "" {
			layers = append(layers, layer)
		}
		below, _ := filepath.Glob(filepath.Join(at, "slaves/*/dev"))
		if rootfs.Exists(filepath.Join(at, "partition")) { // a partition has no slaves: its disk has
			if whole, err := filepath.EvalSymlinks(at); err == nil {
				below = append(below, filepath.Join(filepath.Dir(whole), "dev"))
			}
		}
		for _, name := range below {
			if text, err := os.ReadFile(name); err == nil {
				devices = append(devices, strings.TrimSpace(string(text)))
			}
		}
	}
	slices.Sort(layers)
	return slices.Compact(layers)
}

// layerOf returns the layer that a block device belongs to, by what the kernel shows of it; "" for none. The tools name
// the devices that they make by these prefixes.
func layerOf(at string) rootfs.DiskLayer {
	uuid, _ := os.ReadFile(filepath.Join(at, "dm/uuid"))
	switch {
	case strings.HasPrefix(string(uuid), "LVM-"):
		return rootfs.LayerLVM
	case strings.HasPrefix(string(uuid), "CRYPT-"):
		return rootfs.LayerCrypt
	case strings.HasPrefix(string(uuid), "mpath-"):
		return rootfs.LayerMultipath
	case rootfs.Exists(filepath.Join(at, "md")):
		return rootfs.LayerRAID
	}
	return ""
}
