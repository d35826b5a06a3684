package agent

import (
	"os"
	"testing"
)

func TestSweep(t *testing.T) {
	a := testAgent(t)
	keep := []string{StateDir + "/state.json", StateDir + "/ids.json", StateDir + "/roots/r/image.json", StateDir + "/roots/r/etc/x.new",
		StateDir + "/roots/r/etc.before/passwd", "/run/updatectl/armed.json", "/run/updatectl/lock"}
	half := []string{StateDir + "/.state.json.123", StateDir + "/ids.json.new-123", StateDir + "/roots/r/graft.new/usr",
		StateDir + "/roots/r/etc.merged/passwd", StateDir + "/roots/r/etc.merged.new/passwd", "/run/updatectl/.armed.json.123"}
	for _, name := range append(keep, half...) {
		writeFile(t, a.Machine.Root, name, "")
	}
	if err := a.sweep(); err != nil {
		t.Fatal(err)
	}
	for _, name := range keep {
		if _, err := os.Lstat(a.path(name)); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
	for _, name := range half {
		if _, err := os.Lstat(a.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}
