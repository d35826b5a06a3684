package facts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestLayersOf: a file system may be several layers above its disks, and a layer may be partitioned.
func TestLayersOf(t *testing.T) {
	sys := t.TempDir()
	device := func(name, number string) {
		testtree.File(t, sys, name+"/dev", number+"\n")
		if err := os.MkdirAll(filepath.Join(sys, "block"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../"+name, filepath.Join(sys, "block", number)); err != nil {
			t.Fatal(err)
		}
	}
	stands := func(name, on string) {
		dir := filepath.Join(sys, name, "slaves")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(sys, on), filepath.Join(dir, filepath.Base(on))); err != nil {
			t.Fatal(err)
		}
	}
	device("sda", "8:0")
	device("sda/sda1", "8:1")
	testtree.File(t, sys, "sda/sda1/partition", "1\n")
	device("md0", "9:0")
	testtree.File(t, sys, "md0/md/level", "raid1\n")
	stands("md0", "sda/sda1")
	device("dm-0", "253:0")
	testtree.File(t, sys, "dm-0/dm/uuid", "CRYPT-LUKS2-1-data\n")
	stands("dm-0", "md0")
	device("dm-1", "253:1")
	testtree.File(t, sys, "dm-1/dm/uuid", "LVM-abc\n")
	stands("dm-1", "dm-0")
	device("dm-2", "253:2")
	testtree.File(t, sys, "dm-2/dm/uuid", "mpath-3600\n")
	device("dm-2/dm-2p1", "253:3")
	testtree.File(t, sys, "dm-2/dm-2p1/partition", "1\n")
	for name, c := range map[string]struct {
		devices []string
		want    []rootfs.DiskLayer
	}{
		"a partition of a disk": {[]string{"8:1"}, nil},
		"no block device":       {[]string{"0:23"}, nil},
		"an array":              {[]string{"9:0"}, []rootfs.DiskLayer{rootfs.LayerRAID}},
		"a volume, encrypted, on one": {
			[]string{"253:1"}, []rootfs.DiskLayer{rootfs.LayerLVM, rootfs.LayerCrypt, rootfs.LayerRAID},
		},
		"a partition of a path group": {[]string{"8:1", "253:3"}, []rootfs.DiskLayer{rootfs.LayerMultipath}},
	} {
		slices.Sort(c.want)
		if got := layersOf(filepath.Join(sys, "block"), c.devices); !slices.Equal(got, c.want) {
			t.Errorf("%s stands on %v, want %v", name, got, c.want)
		}
	}
}
