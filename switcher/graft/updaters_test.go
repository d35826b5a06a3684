package graft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestUpdaters: the package managers of an image say where updates come from, and their timers do nothing. An image
// without them gets nothing.
func TestUpdaters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "graft")
	image := testtree.Make(t, "usr/bin/apt-get", "usr/lib/systemd/system/apt-daily.timer")
	if err := (Needs{}).Build(image, dir, nil); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		switcher.UnitDir + "/apt-daily.timer.d/updatectl.conf": "\nConditionPathIsReadWrite=/usr\n",
		aptRule: "L /etc/apt/apt.conf.d/00updatectl - - - - /usr/share/updatectl/apt.conf\n",
		aptHook: "DPkg::Pre-Invoke { \"test -w /usr || ",
	} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s is %q (%v), want %q", file, text, err, want)
		}
	}
	if rootfs.Exists(filepath.Join(dir, switcher.UnitDir, "dnf-automatic.timer.d")) {
		t.Error("a timer that the image does not have is in the graft")
	}
	if err := (Needs{}).Build(testtree.Make(t, "usr/bin/dnf"), dir, nil); err != nil {
		t.Fatal(err)
	}
	if rootfs.Exists(filepath.Join(dir, "usr")) {
		t.Error("an image without apt gets its configuration")
	}
}
