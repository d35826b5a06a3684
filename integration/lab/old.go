package lab

import (
	"context"
	"testing"
)

// oldRecipe is Debian 12: systemd 252, which has no soft reboot.
var oldRecipe = recipe{
	Suites:   []string{"bookworm"},
	Packages: []string{"systemd", "systemd-sysv", "dbus"},
	Hook:     "systemd-machine-id-setup; systemctl mask apt-daily.timer apt-daily-upgrade.timer",
}

// Old returns the tree of a host that is too old for a soft reboot.
func Old(ctx context.Context) (string, error) { return tree(ctx, "old", oldRecipe) }

// StartOld boots a host of Debian 12 for a test. It has no network.
func StartOld(t testing.TB, o Options) *Host {
	t.Helper()
	old, err := Old(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.Tree = old
	return Start(t, o)
}
