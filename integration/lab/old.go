package lab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// oldRecipe is a Debian 12: systemd 252, which knows no soft reboot.
var oldRecipe = recipe{
	Suites:   []string{"bookworm"},
	Packages: []string{"systemd", "systemd-sysv", "dbus"},
	Hook:     "systemd-machine-id-setup; systemctl mask apt-daily.timer apt-daily-upgrade.timer",
}

// Old is the tree of a host that is too old for a soft reboot.
func Old(ctx context.Context) (string, error) { return tree(ctx, "old", oldRecipe) }

// StartOld boots a host of Debian 12 for a test. It has no network.
func StartOld(t testing.TB, o Options) *Host {
	t.Helper()
	customise := o.Customise
	o.Customise = func(root string) error {
		old, err := Old(t.Context())
		if err != nil {
			return err
		}
		script := `find "$2" -mindepth 1 -delete; cp -a "$1/." "$2"`
		if out, err := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", old, root).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot install Debian 12: %w\n%s", err, out)
		}
		if err := writeFile(filepath.Join(root, "etc/hostname"), o.Name+"\n"); err != nil || customise == nil {
			return err
		}
		return customise(root)
	}
	return Start(t, o)
}
