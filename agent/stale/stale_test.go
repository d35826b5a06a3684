package stale

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestRemoveStale: marks of this boot go, by the shipped list and by the host's own, and so does what a namespace is
// mounted on. Everything else stays.
func TestRemoveStale(t *testing.T) {
	m := hosttest.New(t)
	gone := []string{
		"/run/crond.reboot", "/run/cron.reboot", "/run/libvirt/qemu/autostarted", "/run/libpod/alive", "/run/site/mark-1",
		"/dev/shm/libpod_rootless_lock_1000", "/run/crun/c0ffee/status", "/run/crun/c0ffee",
	}
	stay := []string{
		"/run/crond.pid", "/run/libvirt/qemu/vm.xml", "/run/site/other", "/var/lib/mark-1", "/run/user/1/mark",
		"/dev/shm/PostgreSQL.1", "/dev/shm/a/mark-2", "/dev/mark-1",
	}
	testtree.File(t, m.Machine.Root, staleFile, `# of this site
/run/site/mark-*   # our agent
/var/lib/mark-*
/run/user/1/mark
/dev/shm/*/mark-*
/dev/mark-*
/run/*/other
/run/\user/1/mark
/run/../var/lib/mark-1
mark-1
`)
	for _, name := range append(gone, stay...) {
		if _, err := os.Lstat(m.Path(name)); err != nil { // no directory that is there already
			testtree.File(t, m.Machine.Root, name, "")
		}
	}
	netns := m.Path("/run/netns/blue") // as ip-netns(8) makes it
	testtree.File(t, m.Machine.Root, "/run/netns/blue", "")
	if err := unix.Mount("/proc/self/ns/net", netns, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(netns, unix.MNT_DETACH) })
	gone = append(gone, "/run/netns/blue")
	Remove(m)
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
