package etc

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMergedBefore: what an earlier merge made stays if nothing has changed, and is made again if anything has.
func TestMergedBefore(t *testing.T) {
	for name, change := range map[string]func(cur, dst string) error{
		"nothing": func(string, string) error { return nil },
		"a text of the host": func(cur, _ string) error {
			return os.WriteFile(cur+"/passwd", []byte(lines(root, "me:x:9:0:::")), 0o644)
		},
		"a file of the host": func(cur, _ string) error {
			return os.WriteFile(cur+"/local", []byte("M"), 0o644)
		},
		"only the time of one": func(cur, _ string) error {
			return os.Chtimes(cur+"/local", stamp, stamp.AddDate(0, 0, 1))
		},
		"only a mode": func(cur, _ string) error { return os.Chmod(cur+"/local", 0o600) },
		"a link":      func(cur, _ string) error { return os.Symlink("/elsewhere", cur+"/link") },
		"a file less": func(cur, _ string) error { return os.Remove(cur + "/local") },
		"the result: a text": func(_, dst string) error {
			return os.WriteFile(dst+"/passwd", []byte(lines(root)), 0o644)
		},
		"the result: one more": func(_, dst string) error { return os.WriteFile(dst+"/more", nil, 0o644) },
		"the result: one less": func(_, dst string) error { return os.Remove(dst + "/local") },
		"the result: an owner": func(_, dst string) error { return os.Chown(dst+"/local", 5, 5) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := Inputs{
				Old: tree{"passwd": lines(root), "a": "1"}.onDisk(t, dir+"/old"),
				Current: tree{"passwd": lines(root, "mine:x:101:0:::"), "a": "1", "local": "L", "d/": "|755", "d/x": "1"}.
					onDisk(t, dir+"/cur"),
				Next: tree{"passwd": lines(root, "svc:x:102:0:::"), "a": "2", "n": "-> a"}.onDisk(t, dir+"/next"),
			}
			inode := func() uint64 {
				t.Helper()
				var st unix.Stat_t
				if err := unix.Stat(dir+"/etc", &st); err != nil {
					t.Fatal(err)
				}
				return st.Ino
			}
			merge := func() {
				t.Helper()
				if _, err := Merge(in, dir+"/etc"); err != nil {
					t.Fatal(err)
				}
			}
			merge()
			first := inode()
			if err := change(in.Current, dir+"/etc"); err != nil {
				t.Fatal(err)
			}
			merge()
			if kept := inode() == first; kept != (name == "nothing") {
				t.Errorf("the first result is still there: %t", kept)
			}
			out, err := readAndCorrect(in)
			if err != nil || !out.isAt(filepath.Join(dir, "etc")) {
				t.Errorf("the result is not what is decided now (%v)", err)
			}
		})
	}
}
