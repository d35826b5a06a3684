package roots

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// etcCase is a root that ran, and another /etc to merge for it.
type etcCase struct {
	*testing.T
	roots *Roots
	dst   string
}

// mergedTrees merges the /etc directories of a test, not those in images.
type mergedTrees struct {
	machine.Trees
	in etc.Inputs
}

func (m mergedTrees) MergeEtc(_ machine.EtcChange, dst string, _ bool) (etc.Report, error) {
	return etc.Merge(m.in, dst)
}

const etcRoot = "sha256-1"

func newEtcCase(t *testing.T) etcCase {
	rs := newRoots(t)
	dir := t.TempDir()
	testtree.File(t, dir, "current/hostname", "host\n")
	testtree.File(t, dir, "next/hostname", "image\n")
	in := etc.Inputs{Current: filepath.Join(dir, "current"), Next: filepath.Join(dir, "next")}
	rs.Machine.Trees = mergedTrees{rs.Machine.Trees, in}
	c := etcCase{t, rs, rs.Path(record.StateDir + "/roots/" + etcRoot + "/etc")}
	testtree.File(t, c.dst, "ran", "changed while it ran")
	return c
}

func (c etcCase) merge() {
	c.Helper()
	if err := c.roots.mergeEtc(machine.EtcChange{}, c.dst); err != nil {
		c.Fatal(err)
	}
}

// own expects the /etc that the root ran with to have this suffix, and no other.
func (c etcCase) own(where string) {
	c.Helper()
	for _, name := range []string{"", EtcMerged, etcBefore, etcOld} {
		text, err := os.ReadFile(filepath.Join(c.dst+name, "ran"))
		if is := err == nil && string(text) == "changed while it ran"; is != (name == where) {
			c.Errorf("etc%s: %q, %v; want it in etc%s", name, text, err, where)
		}
	}
}

// TestMergedEtcKeepsWhatRan: merging keeps the former /etc, and a root that became good keeps it as the old one.
func TestMergedEtcKeepsWhatRan(t *testing.T) {
	c := newEtcCase(t)
	for range 2 { // the second time after a switch that failed
		c.merge()
		c.own(etcBefore)
		if rootfs.Exists(c.dst + EtcMerged) {
			t.Error("a merge is left over")
		}
	}
	if err := c.roots.RetireEtc(etcRoot); err != nil {
		t.Fatal(err)
	}
	c.own(etcOld)
}

// TestRestoreEtc: whatever a crash left, the /etc that the root was good with is restored.
func TestRestoreEtc(t *testing.T) {
	for name, crash := range map[string]func(c etcCase) error{
		"a switch that failed":          func(etcCase) error { return nil },
		"a crash between the renames":   func(c etcCase) error { return os.Rename(c.dst, c.dst+EtcMerged) },
		"a crash while a merge is made": func(c etcCase) error { return os.MkdirAll(c.dst+EtcMerged+"/half", 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newEtcCase(t)
			c.merge()
			if err := crash(c); err != nil {
				t.Fatal(err)
			}
			c.roots.RestoreEtcs(facts.Facts{Root: etcRoot}) // the running root keeps its new /etc
			c.own(etcBefore)
			c.roots.RestoreEtcs(facts.Facts{Root: switcher.HostRoot})
			c.own("")
			if rootfs.Exists(c.dst+EtcMerged) || rootfs.Exists(c.dst+etcBefore) {
				t.Error("something is left over")
			}
		})
	}
}

// TestMergeAfterACrash: the next merge works after a crash between the two renames.
func TestMergeAfterACrash(t *testing.T) {
	c := newEtcCase(t)
	c.merge()
	if err := os.Rename(c.dst, c.dst+EtcMerged); err != nil {
		t.Fatal(err)
	}
	c.merge()
	c.own(etcBefore)
	if text, err := os.ReadFile(c.dst + "/hostname"); err != nil || string(text) != "host\n" {
		t.Errorf("the merged /etc has %q, %v", text, err)
	}
}

// stuckOld is a disk that cannot remove an /etc.old.
type stuckOld struct{ durable.Disk }

func (d stuckOld) RemoveAll(name string) error {
	if filepath.Base(name) == "etc"+etcOld {
		return unix.EIO
	}
	return d.Disk.RemoveAll(name)
}

// TestRetireEtcDespiteAnOldOne: an /etc of long ago that cannot be removed does not keep a root from becoming good.
func TestRetireEtcDespiteAnOldOne(t *testing.T) {
	c := newEtcCase(t)
	testtree.File(t, c.dst+etcOld, "of-long-ago", "")
	c.merge()
	c.roots.Machine.Disk = stuckOld{c.roots.Machine.Disk}
	for range 2 {
		if err := c.roots.RetireEtc(etcRoot); err != nil {
			t.Fatal(err)
		}
	}
	c.own(etcOld)
	if left, err := filepath.Glob(c.dst + etcOld + "-*.new"); err != nil || len(left) != 1 {
		t.Errorf("what sweeping removes: %v, %v", left, err)
	}
}
