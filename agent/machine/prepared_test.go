package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestMergedAhead: a merge that was made ahead counts as long as nothing has changed that it depends on.
func TestMergedAhead(t *testing.T) {
	site := testtree.Authority(t, "site")
	for name, test := range map[string]struct {
		change func(etc, dst string) error
		counts bool
	}{
		"nothing": {func(string, string) error { return nil }, true},
		"a file is read": {func(etc, _ string) error {
			_, err := os.ReadFile(etc + "/hosts")
			return err
		}, true},
		"other content of the same size and time": {func(etc, _ string) error {
			if err := os.WriteFile(etc+"/hosts", []byte("B\n"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(etc+"/hosts", old, old)
		}, false},
		"a mode":        {func(etc, _ string) error { return os.Chmod(etc+"/hosts", 0o600) }, false},
		"an owner":      {func(etc, _ string) error { return os.Lchown(etc+"/link", 1, 1) }, false},
		"an attribute":  {func(etc, _ string) error { return unix.Setxattr(etc+"/ssh", "user.x", []byte("1"), 0) }, false},
		"a file more":   {func(etc, _ string) error { return os.WriteFile(etc+"/ssh/new", nil, 0o644) }, false},
		"a file less":   {func(etc, _ string) error { return os.Remove(etc + "/hosts") }, false},
		"a file moved":  {func(etc, _ string) error { return os.Rename(etc+"/hosts", etc+"/ssh/hosts") }, false},
		"a new target":  {func(etc, _ string) error { return relink(etc+"/link", "b") }, false},
		"authorities":   {func(etc, _ string) error { return authority(etc, site) }, false},
		"the ledger":    {func(etc, _ string) error { return os.WriteFile(etc+".ids", []byte("{}"), 0o600) }, false},
		"the result":    {func(_, dst string) error { return os.WriteFile(dst+"/hosts", nil, 0o644) }, false},
		"no result":     {func(_, dst string) error { return os.RemoveAll(dst) }, false},
		"no note":       {func(_, dst string) error { return os.Remove(dst + EtcNote) }, false},
		"half a note":   {func(_, dst string) error { return os.Truncate(dst+EtcNote, 100) }, false},
		"the directory": {func(etc, _ string) error { return os.Chmod(etc, 0o700) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, dst := mergedAhead(t)
			if err := test.change(c.Current, dst); err != nil {
				t.Fatal(err)
			}
			report, counts := mergedBefore(c, dst, later())
			if counts != test.counts || counts && !slices.Equal(report.Kept, []string{"hosts"}) {
				t.Errorf("it counts: %v, with %v", counts, report.Kept)
			}
		})
	}
}

// TestMergedAheadOfAnother: it does not count for another image, another base, or a merge with the host root.
func TestMergedAheadOfAnother(t *testing.T) {
	c, dst := mergedAhead(t)
	image, base, host := c, c, c
	image.Next.ID = "another"
	base.Before = &assembly.Next{ID: "another"}
	host.Before = nil
	for name, c := range map[string]EtcChange{"image": image, "base": base, "host": host} {
		if _, counts := mergedBefore(c, dst, later()); counts {
			t.Errorf("the merge counts for another %s", name)
		}
	}
}

// TestMergedWhileItChanged: no note is left when something changed during the merge, or shortly before it.
func TestMergedWhileItChanged(t *testing.T) {
	for name, test := range map[string]struct {
		clock func() time.Time
		merge func(hosts string) error
	}{
		"during": {later, func(hosts string) error { return os.Chmod(hosts, 0o600) }},
		"before": {time.Now, func(string) error { return nil }}, // a moment ago
	} {
		c, dst := mergedAhead(t)
		if _, err := mergeAhead(c, dst, test.clock, func() (etc.Report, error) {
			return etc.Report{}, test.merge(c.Current + "/hosts")
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dst + EtcNote); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: there is a note, %v", name, err)
		}
	}
}

// later is a time at which the last change of a file is old enough.
func later() time.Time { return time.Now().Add(time.Minute) }

// localShare has the authorities of the host that are not in /etc.
const localShare = "usr/local/share/ca-certificates"

// tick is longer than that of the kernel's clock.
const tick = 20 * time.Millisecond

func authority(etc, text string) error {
	return os.WriteFile(filepath.Join(filepath.Dir(etc), localShare, "own.crt"), []byte(text), 0o644)
}

func relink(name, target string) error { return errors.Join(os.Remove(name), os.Symlink(target, name)) }

var old = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// mergedAhead returns a merge that was made ahead. Its directories are old enough to be judged by their times.
func mergedAhead(t *testing.T) (c EtcChange, dst string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "updatectl-*") // /tmp may be in memory, where times say less
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c = EtcChange{Current: filepath.Join(dir, "etc"), Ledger: filepath.Join(dir, "etc.ids"),
		Next: assembly.Next{ID: "b", Persist: []string{"/var"}}, Before: &assembly.Next{ID: "a"}}
	dst = filepath.Join(dir, "roots/b/etc.prepared")
	testtree.File(t, c.Current, "hosts", "A\n")
	testtree.File(t, c.Current, "ssh/key", "k")
	testtree.File(t, filepath.Join(dir, localShare), "site.crt", "c")
	testtree.File(t, dst, "hosts", "A\n")
	if err := os.Symlink("a", c.Current+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(c.Current+"/hosts", old, old); err != nil {
		t.Fatal(err)
	}
	time.Sleep(tick)
	if _, err := mergeAhead(c, dst, later, func() (etc.Report, error) {
		return etc.Report{Kept: []string{"hosts"}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dst + EtcNote); err != nil {
		t.Fatalf("no note is left: %v", err)
	}
	time.Sleep(tick)
	return c, dst
}
