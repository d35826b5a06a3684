package kept

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// TestDiffers: a directory is in its place on the same file system only, however that is mounted.
func TestDiffers(t *testing.T) {
	home := Dir{Path: "/home", Device: "253:2", Below: "/", Source: "/dev/mapper/vg-home"}
	const dm2, dm3 = "/dev/dm-2", "/dev/dm-3"
	image := switcher.SourcePrefix + "sha256-1"
	sub := Dir{Path: "/home", Device: "0:40", Below: "/@home", Source: "/dev/sda2"}
	for name, c := range map[string]struct {
		dir  Dir
		now  facts.Place
		err  error
		want string
	}{
		"as it was":           {home, facts.Place{Device: "253:2", Path: "/", Source: dm2}, nil, ""},
		"another volume":      {home, facts.Place{Device: "253:3", Path: "/", Source: dm3}, nil, "is / on /dev/dm-3; it"},
		"another directory":   {home, facts.Place{Device: "253:2", Path: "/x", Source: dm2}, nil, "; it was "},
		"unmounted":           {home, facts.Place{Source: image}, nil, "the image's own; it was mounted from /dev/mapper"},
		"removed":             {home, facts.Place{Device: "253:2", Path: "/", Deleted: true}, nil, "; it was "},
		"unreadable":          {home, facts.Place{}, unix.EIO, "cannot be read"},
		"no mount point":      {home, facts.Place{}, &fs.PathError{Op: "open", Path: "/home", Err: unix.ENOENT}, ""},
		"subvolume, remount":  {sub, facts.Place{Device: "0:51", Path: "/@home", Source: "/dev/sda2"}, nil, ""},
		"subvolume of others": {sub, facts.Place{Device: "0:51", Path: "/@home", Source: "/dev/sdb2"}, nil, "; it was "},
		"another subvolume":   {sub, facts.Place{Device: "0:40", Path: "/@old", Source: "/dev/sda2"}, nil, "; it was "},
	} {
		got := c.dir.differs(c.now, c.err)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestGone: what is not seen any more is gone. What is seen counts as it is, and what nobody keeps any more is nothing
// to look for.
func TestGone(t *testing.T) {
	before := []Dir{{Path: "/home", Device: "253:2"}, {Path: "/srv", Device: "253:0"}, {Path: "/opt", Device: "253:3"}}
	now := []Dir{{Path: "/srv", Device: "8:1"}, {Path: "/var", Device: "253:1"}}
	want := []Dir{{Path: "/home", Device: "253:2"}}
	if got := Gone(before, now, []string{"/var", "/srv", "/home"}); !slices.Equal(got, want) {
		t.Errorf("gone are %+v, want %+v", got, want)
	}
}

// TestFromAbove: what is mounted in another directory comes after that, which would hide it.
func TestFromAbove(t *testing.T) {
	dirs := []Dir{{Path: "/var/lib/db/data"}, {Path: "/var/log"}, {Path: "/srv"}, {Path: "/var"}}
	want := []Dir{{Path: "/srv"}, {Path: "/var"}, {Path: "/var/log"}, {Path: "/var/lib/db/data"}}
	if got := fromAbove(dirs); !slices.Equal(got, want) {
		t.Errorf("the order is %+v, want %+v", got, want)
	}
}

// TestMountOptions: a file system is mounted again as it was. A mount that was read-only does not make it read-only.
func TestMountOptions(t *testing.T) {
	for name, c := range map[string]struct {
		dir     Dir
		flags   uintptr
		options string
	}{
		"plain": {Dir{Options: "rw", Flags: "rw,relatime"}, unix.MS_RELATIME, ""},
		"hardened": {
			Dir{Options: "rw,errors=remount-ro", Flags: "rw,nosuid,nodev,noexec"},
			unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "errors=remount-ro",
		},
		"read-only mount":   {Dir{Options: "rw", Flags: "ro,noatime"}, unix.MS_NOATIME, ""},
		"read-only disk":    {Dir{Options: "ro", Flags: "ro"}, unix.MS_RDONLY, ""},
		"subvolume":         {Dir{Options: "rw,subvolid=256,subvol=/@home", Flags: "rw"}, 0, "subvolid=256,subvol=/@home"},
		"nothing was noted": {Dir{}, 0, ""},
	} {
		if flags, options := c.dir.mountOptions(); flags != c.flags || options != c.options {
			t.Errorf("%s: %#x %q, want %#x %q", name, flags, options, c.flags, c.options)
		}
	}
}

// TestObserveThis: what this machine has is in its place, and nothing is mounted again for it.
func TestObserveThis(t *testing.T) {
	dir := t.TempDir()
	dirs := Observe([]string{dir, dir + "/missing"}, "/nonexistent")
	if i := slices.IndexFunc(dirs, func(d Dir) bool { return d.Path == dir }); i < 0 || dirs[i].Type == "" {
		t.Fatalf("%s is not in %+v", dir, dirs)
	}
	if got := Displaced(dirs, "/nonexistent"); len(got) > 0 {
		t.Errorf("displaced are %q", got)
	}
	if err := Restore(dirs, "/nonexistent"); err != nil {
		t.Error(err)
	}
	moved := Dir{Path: dir, Device: "253:99", Below: "/", Source: "/dev/nonexistent", Type: "ext4"}
	if got := Displaced([]Dir{moved}, "/nonexistent"); len(got) != 1 {
		t.Errorf("displaced are %q", got)
	}
	if err := Restore([]Dir{moved}, "/nonexistent"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("restoring from a device that is gone ends with %v", err)
	}
}
