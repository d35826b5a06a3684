package agent

import (
	"os"
	"testing"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestSweep: what killed commands left half made is removed, and nothing else.
func TestSweep(t *testing.T) {
	a := testAgent(t)
	const roots = record.StateDir + "/roots/r"
	keep := []string{
		record.StateDir + "/state.json", record.StateDir + "/ids.json",
		roots + "/image.json", roots + "/etc/x.new", roots + "/etc.before/passwd",
		"/run/updatectl/armed.json", "/run/updatectl/lock",
	}
	half := []string{
		record.StateDir + "/.state.json.123", record.StateDir + "/ids.json.new-123",
		roots + "/graft.new/usr", roots + "/etc.merged/passwd", roots + "/etc.merged.new/passwd",
		"/run/updatectl/.armed.json.123",
	}
	for _, name := range append(keep, half...) {
		testtree.File(t, a.Machine.Root, name, "")
	}
	(&session{Agent: a}).sweep()
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
