package carried

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/moby/sys/mountinfo"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestSortMounts(t *testing.T) {
	units := testtree.Make(t, "srv-native.mount", "srv-lazy\\x2dnative.automount")
	known := Known{
		Points: []string{
			"/srv", "/srv/cache", "/srv/nfs", "/srv/bind", "/srv/ntfs", "/srv/lazy", "/srv/union",
		},
		Automounts: []string{"/srv/lazy"}, UnitDirs: []string{"/nowhere", units},
	}
	for name, c := range map[string]struct {
		mounts []string // mount point, type, source, root
		carry  string
		drop   string
	}{
		"nothing":           {nil, "", ""},
		"the path itself":   {[]string{". tmpfs tmpfs /"}, "", ""},
		"a disk":            {[]string{"db ext4 /dev/sdb1 /"}, "db", ""},
		"a subvolume":       {[]string{"db btrfs /dev/sdb1 /@db"}, "db", ""},
		"zfs":               {[]string{"db zfs pool/db /"}, "db", ""},
		"a share of the VM": {[]string{"db virtiofs data /"}, "db", ""},
		"a bind":            {[]string{"named/chroot/etc ext4 /dev/sda1 /etc/named"}, "", "named/chroot/etc"},
		"a bind in fstab":   {[]string{"bind ext4 /dev/sda1 /opt/data"}, "bind", ""},
		"tmpfs in fstab":    {[]string{"cache tmpfs tmpfs /"}, "cache", ""},
		"nfs in fstab":      {[]string{"nfs nfs4 nas:/x /"}, "nfs", ""},
		"nfs":               {[]string{"other nfs4 nas:/x /"}, "", "other"},
		"a unit":            {[]string{"native xfs systemd-1 /x"}, "native", ""},
		"overlay in fstab":  {[]string{"union overlay overlay /"}, "union", ""},
		"fuse in fstab":     {[]string{"ntfs fuseblk /dev/sdc1 /"}, "", "ntfs"},
		"docker": {[]string{
			"lib/docker ext4 /dev/sdd1 /", "lib/docker/overlay2/1/merged overlay overlay /",
			"lib/docker/containers/1/shm tmpfs shm /", "lib/docker/netns nsfs nsfs net:[1]",
		}, "lib/docker", "lib/docker/overlay2/1/merged lib/docker/containers/1/shm lib/docker/netns"},
		"kubelet": {[]string{
			"k/pods/1/secret tmpfs tmpfs /", "k/pods/1/volume ext4 /dev/sde /", "k/pods/1/sub ext4 /dev/sde /sub",
		}, "k/pods/1/volume", "k/pods/1/secret k/pods/1/sub"},
		"of the running root": {[]string{"lib/dpkg overlay updatectl:1 /"}, "", "lib/dpkg"},
		"automount":           {[]string{"lazy autofs systemd-1 /"}, "", "lazy"},
		"automount in use":    {[]string{"lazy autofs systemd-1 /", "lazy ext4 /dev/sdb1 /"}, "", "lazy lazy"},
		"automount by a unit": {[]string{"lazy-native autofs s /", "lazy-native ext4 /dev/sdb1 /"}, "",
			"lazy-native lazy-native"},
		"unknown automount":        {[]string{"a autofs s /"}, "", "a"},
		"unknown automount in use": {[]string{"a autofs s /", "a ext4 /dev/sdb1 /"}, "a", ""},
		"below an automount": {[]string{"lazy autofs s /", "lazy ext4 /dev/sdb1 /", "lazy/x ext4 /dev/sdc1 /"}, "",
			"lazy lazy lazy/x"},
		"a disk on a tmpfs": {[]string{"t tmpfs t /", "t/disk ext4 /dev/sdb1 /", "t/x tmpfs t /"}, "t/disk", "t/x"},
		"a like name":       {[]string{"t tmpfs tmpfs /", "tt ext4 /dev/sdb1 /"}, "tt", "t"},
	} {
		t.Run(name, func(t *testing.T) {
			const at = "/run/next/srv"
			var mounts []*mountinfo.Info
			for _, text := range c.mounts {
				f := strings.Fields(text)
				mounts = append(mounts, &mountinfo.Info{
					Mountpoint: filepath.Join(at, f[0]), FSType: f[1], Source: f[2], Root: f[3],
				})
			}
			carry, drop := sortMounts(mounts, at, "/srv", known)
			if want := below("/srv", c.carry); !slices.Equal(carry, want) {
				t.Errorf("carried %q, want %q", carry, want)
			}
			if want := below(at, c.drop); !slices.Equal(drop, want) {
				t.Errorf("dropped %q, want %q", drop, want)
			}
		})
	}
}

// below returns a list of paths below a directory.
func below(dir, names string) []string {
	var paths []string
	for _, name := range strings.Fields(names) {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

// TestAwaited: what a unit mounts and is not mounted is no state yet. What has no unit is a directory of the root, and
// /proc is mounted on every machine.
func TestAwaited(t *testing.T) {
	dir := t.TempDir()
	late, plain := filepath.Join(dir, "late"), filepath.Join(dir, "plain")
	name := func(p string) string { return unit.UnitNamePathEscape(p) + ".mount" }
	units := testtree.Make(t, name(late), name("/proc"))
	got, err := withoutAwaited([]string{plain, late, "/proc"}, Known{UnitDirs: []string{"/nowhere", units}})
	if err != nil || !slices.Equal(got, []string{plain, "/proc"}) {
		t.Errorf("without what is awaited: %q, %v", got, err)
	}
}
