package fstab

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestFilterFstab(t *testing.T) {
	const in = `# a comment for /
UUID=1 / ext4 errors=remount-ro 0 1
  UUID=2	/usr/  ext4 defaults 0 2
tmpfs //etc tmpfs
UUID=3 /usr/local ext4
UUID=4 none swap sw
/dev/sr0 /media/a\040b iso9660 noauto
/ /srv none bind
broken
UUID=5 /x/.. ext4`
	const want = `# a comment for /
# updatectl: the root is an image: UUID=1 / ext4 errors=remount-ro 0 1
# updatectl: /usr is part of the image:   UUID=2	/usr/  ext4 defaults 0 2
# updatectl: /etc belongs to the root: tmpfs //etc tmpfs
UUID=3 /usr/local ext4
UUID=4 none swap sw
/dev/sr0 /media/a\040b iso9660 noauto
/ /srv none bind
broken
# updatectl: the root is an image: UUID=5 /x/.. ext4`
	if got := string(Filter([]byte(in))); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFstabMountPoints(t *testing.T) {
	const in = `/dev/a / ext4
/dev/b /srv/x ext4
#/dev/c /no ext4
/dev/d /media/a\040b\043/ auto noauto
tmpfs /run/x tmpfs
proc /proc proc
UUID=4 none swap
/dev/e /srv/x xfs
/dev/f /usr/local
tmpfs relative tmpfs
/dev/g /runner ext4
/dev/h /lazy ext4 ro,x-systemd.automount,nofail 0 2
/dev/i /not-lazy ext4 x-systemd.automounted`
	want := []string{"/lazy", "/media/a b#", "/not-lazy", "/runner", "/srv/x", "/usr/local"}
	got, automounts := MountPoints(strings.NewReader(in))
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := []string{"/lazy"}; !slices.Equal(automounts, want) {
		t.Errorf("on first use %q, want %q", automounts, want)
	}
	big := strings.Repeat("#\n", MaxSize) + "/dev/b /late ext4\n"
	if got, _ := MountPoints(strings.NewReader(big)); len(got) != 0 {
		t.Errorf("read past the limit: %q", got)
	}
}

func TestUnitMountPoints(t *testing.T) {
	dir := testtree.Files{
		"systemd/system/srv-data.mount":     "[Unit]\n[Mount]\nWhat=/dev/sdb1\nWhere = /srv/data/\n",
		"systemd/system/data.automount":     "[Automount]\nWhere=/data\n",
		"systemd/system/data.mount":         "[Mount]\nWhere=/data\n",
		"systemd/system/-.mount":            "[Mount]\nWhere=/\n",
		"systemd/system/snap-core-1.mount":  "[Mount]\nWhere=/snap/core/1\n",
		"systemd/system/usr.mount":          "[Mount]\nWhere=/usr\n",
		"systemd/system/run-x.mount":        "[Mount]\nWhere=/run/x\n",
		"systemd/system/odd.mount":          "Where=relative\nWhere=\nWhere=/a%i\n",
		"systemd/system/gone.mount":         "-> /dev/null",
		"systemd/system/other.service":      "Where=/other\n",
		"systemd/system/outside.mount":      "-> ../../../../../../etc/hostname",
		"systemd/system/wants/wanted.mount": "Where=/wanted\n",
	}.OnDisk(t, t.TempDir()+"/etc")
	if got, want := UnitMountPoints(dir), []string{"/data", "/srv/data"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := UnitMountPoints(t.TempDir()); len(got) > 0 {
		t.Errorf("an empty /etc has %q", got)
	}
}

func FuzzFstab(f *testing.F) {
	seeds := []string{"", "/dev/a / ext4\n", "/dev/a /", "a /usr\\040", `x \134 y`, "#", "a /../usr b\r\n",
		"a\t/etc\t", "a /\x00 b", "\x00", "a //"}
	if len(seeds) < 10 {
		f.Fatal("the seeds are gone")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out := Filter(in)
		if !bytes.Equal(Filter(out), out) {
			t.Fatalf("filtering twice changes %q", out)
		}
		if bytes.Count(out, []byte("\n")) != bytes.Count(in, []byte("\n")) {
			t.Fatalf("lines lost or added: %q", out)
		}
		for line := range bytes.Lines(out) {
			if point, ok := mountPoint(string(line)); ok && imageMounts[point] != "" {
				t.Fatalf("still mounts over the image: %q", line)
			}
		}
		points, _ := MountPoints(bytes.NewReader(in))
		for _, p := range points {
			if !strings.HasPrefix(p, "/") || p == "/" || strings.Contains(p, "/../") {
				t.Fatalf("mount point %q", p)
			}
		}
		Join(out, in)
	})
}
