package agent

import (
	"os"
	"testing"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestSweep: what killed commands left half made is removed, and nothing else.
func TestSweep(t *testing.T) {
	a := testAgent(t)
	const dir = record.StateDir + "/roots/r"
	keep := []string{
		record.StateDir + "/state.json", record.StateDir + "/ids.json",
		dir + "/image.json", dir + "/etc/x.new", dir + "/etc.before/passwd",
		"/run/updatectl/armed.json", "/run/updatectl/lock",
	}
	half := []string{
		record.StateDir + "/.state.json.123", record.StateDir + "/ids.json.new-123",
		dir + "/graft.new/usr", dir + "/etc.merged/passwd", dir + "/etc.prepared/passwd", dir + "/etc.prepared.new/passwd",
		dir + "/etc.prepared.json",
		"/run/updatectl/.armed.json.123",
	}
	for _, name := range append(keep, half...) {
		testtree.File(t, a.Machine.Root, name, "")
	}
	roots.Sweep(&a.Roots)
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
