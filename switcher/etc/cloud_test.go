package etc

import (
	"os"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/fstab"
)

// TestCloudInitKnowsItsInstance: a new instance gets new host keys, users and another network.
func TestCloudInitKnowsItsInstance(t *testing.T) {
	for _, test := range []struct {
		name           string
		old, cur, next tree
		state          tree
		kept           []string
		files          []string // in /etc/cloud
	}{
		{
			name: "an instance", cur: tree{"cloud/cloud.cfg": "H", "cloud/cloud.cfg.d/90.cfg": "H"},
			next: tree{"cloud/cloud.cfg": "I", "cloud/cloud.cfg.d/99-none.cfg": "I"}, state: tree{"data/instance-id": "i-1"},
			files: []string{"cloud.cfg", "cloud.cfg.d"},
		},
		{
			name: "an instance whose state does not come along", cur: tree{"cloud/cloud.cfg": "H"},
			next: tree{"cloud/cloud.cfg": "I"}, state: tree{"data/instance-id": "i-1"}, kept: []string{"/home"},
			files: []string{"cloud-init.disabled", "cloud.cfg"},
		},
		{
			name: "no cloud-init here", cur: tree{"a": ""}, next: tree{"cloud/cloud.cfg": "I"},
			files: []string{"cloud-init.disabled", "cloud.cfg"},
		},
		{
			name: "neither has it", cur: tree{"a": ""}, next: tree{"a": ""},
		},
		{
			name: "a later image brings it", old: tree{"a": ""}, cur: tree{"a": ""}, next: tree{"cloud/cloud.cfg": "I"},
			files: []string{"cloud-init.disabled", "cloud.cfg"},
		},
		{
			name: "a later image brings it back to an instance", old: tree{"a": ""}, cur: tree{"cloud/cloud.cfg": "H"},
			next: tree{"cloud/cloud.cfg": "2"}, state: tree{"data/instance-id": "i-1"}, files: []string{
				".cloud.cfg.image.dpkg-new", "cloud.cfg"},
		},
		{
			name: "a later image has it, too", old: tree{"cloud/cloud.cfg": "1"}, cur: tree{"cloud/cloud.cfg": "1"},
			next: tree{"cloud/cloud.cfg": "2"}, files: []string{"cloud.cfg"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			in := Inputs{Current: test.cur.onDisk(t, dir+"/host/etc"), Next: test.next.onDisk(t, dir+"/2/etc"),
				Host: dir + "/host", State: dir + "/host", Sources: fstab.Sources{Kept: test.kept}}
			if test.old != nil {
				in.Old = test.old.onDisk(t, dir+"/1/etc")
				in.Host = dir // after a full reboot, only its /etc is at hand
			}
			test.state.onDisk(t, dir+"/host"+cloudState)
			if _, err := Merge(in, dir+"/etc"); err != nil {
				t.Fatal(err)
			}
			var files []string
			entries, _ := os.ReadDir(dir + "/etc/cloud")
			for _, e := range entries {
				files = append(files, e.Name())
			}
			if !slices.Equal(files, test.files) {
				t.Errorf("/etc/cloud has %q, want %q", files, test.files)
			}
			if more, _ := os.ReadDir(dir + "/etc/cloud/cloud.cfg.d"); len(more) > 1 {
				t.Errorf("the image's %v are mixed with the host's", more)
			}
		})
	}
}
