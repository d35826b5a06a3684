package difference

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/testtree"
)

type files = testtree.Files

func TestDiff(t *testing.T) {
	dir := t.TempDir()
	pristine := files{"same": "1", "a.conf": "1\n", "merged.conf": "1\n", "conflict.conf": "1\n", "gone/file": "1\n",
		"mode": "1", "shadow": "root:*:1::::::\n|640", "secret": "1\n|600", "dir/secret": "1\n", "dir/": "|700",
		"passwd": "root:x:0:0::/root:/bin/sh\n", "ld.so.cache": "1", "fstab": "/dev/a / ext4\n", "kind": "1",
	}.OnDisk(t, dir+"/image")
	current := files{"same": "1", "a.conf": "L\n", "merged.conf": "L\n", "conflict.conf": "L\n",
		reserved.MergedList: "merged.conf\n", ".conflict.conf.image.dpkg-new": "1\n", "mode": "1|600",
		"shadow": "root:$1$:1::::::\n|640", "secret": "L\n|600",
		"dir/secret": "L\n", "dir/": "|700", "new/file": "L\n", "empty/": "", reserved.ToDerive: "",
		"passwd": "root:x:0:0::/root:/bin/bash\n", "ld.so.cache": "L", "kind": "-> same",
		"fstab": "# updatectl: the root is an image: /dev/a / ext4\n",
	}.OnDisk(t, dir+"/etc")
	list, err := Diff(pristine, current, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range list {
		got[d.Path] = string(d.Change) + " " + strings.Join(d.Fields, ",")
		if shown := d.Diff != ""; shown != slices.Contains(
			[]string{"a.conf", "merged.conf", "conflict.conf", "gone/file", "new/file", "passwd"}, d.Path) {
			t.Errorf("%s: the text is shown: %v", d.Path, shown)
		}
	}
	want := map[string]string{
		"a.conf": "changed content", "merged.conf": "merged content", "conflict.conf": "conflict content",
		"gone/file": "removed ", "new/file": "added ", "empty": "added ", "mode": "changed mode", "shadow": "changed content",
		"secret": "changed content", "dir/secret": "changed content", "passwd": "changed content",
		"ld.so.cache": "derived content", "kind": "changed kind",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	list, err = Diff(pristine, current, nil, []string{"shadow"})
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Diff, "\n-root:*:1::::::\n+root:$1$:1::::::\n") {
		t.Errorf("a path that is asked for: %+v, %v", list, err)
	}
	list, err = Diff(pristine, current, nil, []string{"dir"})
	if err != nil || len(list) != 1 || list[0].Diff != "" {
		t.Errorf("a directory that is asked for: %+v, %v", list, err)
	}
}

func TestTake(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, path  string
		image, here files
		want        string // content; "" when it is not there
		backup      bool
		failure     error
	}{
		{name: "changed", path: "/etc/d/a b", image: files{"d/a b": "1|640"}, here: files{"d/a b": "L"}, want: "1",
			backup: true},
		{name: "without /etc", path: "d/a", image: files{"d/a": "1"}, here: files{"d/a": "L"}, want: "1", backup: true},
		{name: "added", path: "/etc/a", image: files{"b": ""}, here: files{"a": "L"}, backup: true},
		{name: "removed", path: "/etc/a", image: files{"a": "1"}, here: files{"b": ""}, want: "1"},
		{name: "a conflict", path: "/etc/a", image: files{"a": "1"}, here: files{"a": "L", ".a.image.dpkg-new": "1"},
			want: "1", backup: true},
		{name: "as in the image", path: "/etc/a", image: files{"a": "1"}, here: files{"a": "1"}, want: "1",
			failure: ErrNotTaken},
		{name: "nowhere", path: "/etc/a", image: files{"b": ""}, here: files{"b": ""}, failure: ErrNotTaken},
		{name: "a directory", path: "/etc/d", image: files{"d/a": "1"}, here: files{"d/a": "L"}, failure: ErrNotTaken},
		{name: "below a link", path: "/etc/d/a", image: files{"d/a": "1"}, here: files{"d": "-> /tmp"}, failure: ErrNotTaken},
		{name: "users", path: "/etc/passwd", image: files{"passwd": "1"}, here: files{"passwd": "L"}, want: "L",
			failure: ErrNotTaken},
		{name: "machine-id", path: "/etc/machine-id", image: files{"b": ""}, here: files{"machine-id": "L"}, want: "L",
			failure: ErrNotTaken},
		{name: "fstab", path: "/etc/fstab", image: files{"fstab": "1"}, here: files{"fstab": "L"}, want: "L",
			failure: ErrNotTaken},
		{name: "outside", path: "/etc/../a", image: files{"a": "1"}, here: files{"a": "L"}, failure: ErrNotTaken},
		{name: "another tree", path: "/usr/a", image: files{"a": "1"}, here: files{"a": "L"}, failure: ErrNotTaken},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			image, here := test.image.OnDisk(t, dir+"/image"), test.here.OnDisk(t, dir+"/etc")
			taken, err := Take(image, here, test.path, at)
			if !errors.Is(err, test.failure) || test.failure == nil && err != nil {
				t.Fatalf("%v, want %v", err, test.failure)
			}
			full := here + strings.TrimPrefix("/"+strings.TrimPrefix(test.path, "/"), "/etc")
			if !strings.HasPrefix(test.path, "/") {
				full = here + "/" + test.path
			}
			if text, _ := os.ReadFile(full); string(text) != test.want {
				t.Errorf("it has %q, want %q", text, test.want)
			}
			if test.failure != nil {
				return
			}
			if (taken.Backup != "") != test.backup || taken.Removed != (test.want == "") {
				t.Errorf("the answer is %+v", taken)
			}
			if _, err := os.Lstat(here + "/.a.image.dpkg-new"); err == nil {
				t.Error("the image's version is still beside the file")
			}
			undo := strings.ReplaceAll(taken.Undo, "/etc/", here+"/")
			if out, err := exec.Command("sh", "-c", undo).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", undo, err, out)
			}
			before, was := test.here[strings.TrimPrefix(strings.TrimPrefix(test.path, "/"), "etc/")]
			if text, err := os.ReadFile(full); was && string(text) != before || !was && err == nil {
				t.Errorf("after %s, it has %q, %v", undo, text, err)
			}
		})
	}
}
