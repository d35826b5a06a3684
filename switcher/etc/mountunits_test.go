package etc

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestMoveUnits: native units of the host whose source lies on the host root are treated as lines of its fstab are.
func TestMoveUnits(t *testing.T) {
	const host = "/.updatectl/host"
	unit := func(settings string) string {
		return "[Mount]\n" + settings + "\n[Install]\nWantedBy=local-fs.target\n"
	}
	for name, c := range map[string]struct {
		files map[string]string // below systemd/system; "-> " begins the target of a link
		want  map[string]string // what is there afterwards, if it changed; "" if it is gone
		note  string
	}{
		"bind": {
			files: map[string]string{"srv-data.mount": unit("What=/opt/data\nWhere=/srv/data\nType=none\nOptions=bind")},
			want: map[string]string{
				"srv-data.mount": unit("What=" + host + "/opt/data\nWhere=/srv/data\nType=none\nOptions=bind"),
			},
			note: "srv-data.mount: /srv/data is mounted from " + host + "/opt/data, read-only",
		},
		"up, and out of the host root": {
			files: map[string]string{"srv-data.mount": unit("What=/a/../../../opt/data\nWhere=/srv/data\nOptions=bind")},
			want:  map[string]string{"srv-data.mount": unit("What=" + host + "/opt/data\nWhere=/srv/data\nOptions=bind")},
			note:  "srv-data.mount: /srv/data is mounted from " + host + "/opt/data, read-only",
		},
		"bind in a drop-in": {
			files: map[string]string{
				"srv-data.mount":                unit("What=/dev/sdb1\nWhere=/srv/data"),
				"srv-data.mount.d/10-site.conf": "[Mount]\nWhat = /opt/data\n",
			},
			want: map[string]string{"srv-data.mount.d/10-site.conf": "[Mount]\nWhat=" + host + "/opt/data\n"},
			note: "/opt/data",
		},
		"a disk":     {files: map[string]string{"srv-data.mount": unit("What=/dev/vg/data\nWhere=/srv/data")}},
		"kept state": {files: map[string]string{"mnt.mount": unit("What=/var/data\nWhere=/mnt\nOptions=bind")}},
		"on own disk": {files: map[string]string{
			"a.mount": unit("What=/d/a\nWhere=/a"), "d.mount": unit("What=/dev/b\nWhere=/d"),
		}},
		"an automount": {files: map[string]string{"d.automount": "[Automount]\nWhere=/d\n"}},
		"a swap file": {
			files: map[string]string{
				"swap.img.swap": "[Swap]\nWhat=/swap.img\n", "swap.target.wants/swap.img.swap": "-> ../swap.img.swap",
				"swap.img.swap.d/a.conf": "[Swap]\nPriority=1\n",
			},
			want: map[string]string{"swap.img.swap": "", "swap.target.wants/swap.img.swap": "", "swap.img.swap.d/a.conf": ""},
			note: "swap.img.swap: the swap file /swap.img is not used",
		},
		"a swap partition": {files: map[string]string{"dev-sdb2.swap": "[Swap]\nWhat=/dev/sdb2\n"}},
		"an overlay": {
			files: map[string]string{"o.mount": unit("What=overlay\nWhere=/o\nType=overlay\nOptions=lowerdir=/opt/l")},
			want:  map[string]string{"o.mount": ""},
			note:  "o.mount: /o is not mounted: it needs /opt/l on the host root",
		},
		"a linked unit": {
			files: map[string]string{"a.mount": "-> /opt/units/a.mount"},
			want:  map[string]string{"a.mount": "[Mount]\nWhat=/dev/sdb1\nWhere=/a\n"},
		},
		"a masked unit": {files: map[string]string{"a.mount": "-> /dev/null"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			testtree.File(t, root, "opt/units/a.mount", "[Mount]\nWhat=/dev/sdb1\nWhere=/a\n")
			testtree.File(t, root, "etc/hostname", "host\n")
			image := testtree.Make(t)
			testtree.File(t, image, "etc/hostname", "image\n")
			for file, text := range c.files {
				file = filepath.Join("etc/systemd/system", file)
				if target, isLink := strings.CutPrefix(text, "-> "); !isLink {
					testtree.File(t, root, file, text)
				} else if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755),
					os.Symlink(target, filepath.Join(root, file))); err != nil {
					t.Fatal(err)
				}
			}
			in := Inputs{Host: root, Current: root + "/etc", Next: image + "/etc",
				Sources: fstab.Sources{Kept: []string{"/var", "/home", "/srv"}, Mount: host}}
			dst := filepath.Join(t.TempDir(), "etc")
			report, err := Merge(in, dst)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range slices.Sorted(maps.Keys(c.files)) {
				want, changed := c.want[file]
				if !changed {
					want = c.files[file]
				}
				got := ""
				if target, err := os.Readlink(filepath.Join(dst, "systemd/system", file)); err == nil {
					got = "-> " + target
				} else if text, err := os.ReadFile(filepath.Join(dst, "systemd/system", file)); err == nil {
					got = string(text)
				}
				if got != want {
					t.Errorf("%s is %q, want %q", file, got, want)
				}
			}
			notes := strings.Join(report.Notes, "\n")
			if silent := !strings.Contains(notes, "host root"); silent != (c.note == "") || !strings.Contains(notes, c.note) {
				t.Errorf("the notes are %q, want %q", notes, c.note)
			}
		})
	}
}
