package agent

import (
	"os"
	"testing"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestSweep(t *testing.T) {
	a := testAgent(t)
	keep := []string{record.StateDir + "/state.json", record.StateDir + "/ids.json", record.StateDir + "/roots/r/image.json", record.StateDir + "/roots/r/etc/x.new",
		record.StateDir + "/roots/r/etc.before/passwd", "/run/updatectl/armed.json", "/run/updatectl/lock"}
	half := []string{record.StateDir + "/.state.json.123", record.StateDir + "/ids.json.new-123", record.StateDir + "/roots/r/graft.new/usr",
		record.StateDir + "/roots/r/etc.merged/passwd", record.StateDir + "/roots/r/etc.merged.new/passwd", "/run/updatectl/.armed.json.123"}
	for _, name := range append(keep, half...) {
		testtree.File(t, a.Machine.Root, name, "")
	}
	if err := a.sweep(); err != nil {
		t.Fatal(err)
	}
	for _, name := range keep {
		if _, err := os.Lstat(a.Path(name)); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
	for _, name := range half {
		if _, err := os.Lstat(a.Path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}
