package configs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestNoStartLimit: every switch starts these units, and somebody may ask for one as often as they like; systemd's
// default limit is five starts in ten seconds.
func TestNoStartLimit(t *testing.T) {
	for _, unit := range []string{"updatectl-guard.service", "updatectl-arm.service", "updatectl-confirm.service"} {
		if !strings.Contains(Units()[unit], "\nStartLimitIntervalSec=0\n") {
			t.Errorf("%s has a limit", unit)
		}
	}
}

// TestStateIsMounted: a /var with nofail is not part of local-fs.target. The guard has to outlive the mount units of
// the root that is left, so it must not depend on them. What renews units reads nothing of the state, and what makes
// derived files only /etc, which is mounted before a root starts: on a host root with /var on a network disk, waiting
// for /var would be a cycle, since both are ordered before the network.
func TestStateIsMounted(t *testing.T) {
	stateless := []string{"updatectl-guard.service", "updatectl-renew.service", "updatectl-derive.service"}
	for unit, text := range Units() {
		if !strings.HasSuffix(unit, ".service") || strings.HasPrefix(text, "-> ") {
			continue
		}
		if got, want := strings.Contains(text, "\nRequiresMountsFor=/var/lib/updatectl\n"),
			!slices.Contains(stateless, unit); got != want {
			t.Errorf("%s requires the state: %v, want %v", unit, got, want)
		}
	}
}

// TestNoLocalDocument: no unit names a document on the disk. Units are carried into images, and the documents are not.
func TestNoLocalDocument(t *testing.T) {
	units, err := filepath.Glob("units/updatectl*")
	if err != nil || len(units) < 5 {
		t.Fatalf("found the units %v, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Documentation=") && strings.Contains(line, "file:") {
				t.Errorf("%s: image roots lack %s", unit, strings.TrimSpace(line))
			}
		}
	}
}

// TestRunLockIsEarly: /run/lock may be a line of fstab(5). Such a mount is ordered after local-fs-pre.target by
// default, and the drop-in orders it before: systemd would leave out the mount, and local-fs.target with it.
func TestRunLockIsEarly(t *testing.T) {
	text, err := files.ReadFile("dropins/run-lock.mount.d/updatectl.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"DefaultDependencies=no", "Before=local-fs-pre.target lvm2-monitor.service dm-event.service multipathd.service",
		// What the defaults would have brought besides.
		"Before=local-fs.target umount.target", "Conflicts=umount.target",
	} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the drop-in lacks %s", line)
		}
	}
}
