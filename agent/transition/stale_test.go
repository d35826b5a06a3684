package transition

import (
	"os"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestRemoveStale: marks of this boot go, by the shipped list and by the host's own; everything else stays.
func TestRemoveStale(t *testing.T) {
	m := newArrival(t)
	gone := []string{"/run/crond.reboot", "/run/libvirt/qemu/autostarted", "/run/libpod/alive", "/run/site/mark-1"}
	stay := []string{
		"/run/crond.pid", "/run/libvirt/qemu/vm.xml", "/run/site/other", "/var/lib/mark-1", "/run/user/1/mark",
	}
	testtree.File(t, m.Machine.Root, staleFile, `# of this site
/run/site/mark-*   # our agent
/var/lib/mark-*
/run/user/1/mark
/run/*/other
/run/\user/1/mark
/run/../var/lib/mark-1
mark-1
`)
	for _, name := range append(gone, stay...) {
		testtree.File(t, m.Machine.Root, name, "")
	}
	m.removeStale()
	for _, name := range gone {
		if _, err := os.Lstat(m.Path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range stay {
		if _, err := os.Lstat(m.Path(name)); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
}

// TestStaleList: the shipped list has only what may be listed, each with a reason.
func TestStaleList(t *testing.T) {
	if patterns, err := stalePatterns(configs.Stale()); err != nil || len(patterns) == 0 {
		t.Errorf("the shipped list: %d patterns, %v", len(patterns), err)
	}
	for line := range strings.Lines(configs.Stale()) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "/") && !strings.Contains(line, "# ") {
			t.Errorf("no reason beside %q", line)
		}
	}
}
