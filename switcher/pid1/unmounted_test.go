package pid1

import (
	"slices"
	"testing"

	"github.com/coreos/go-systemd/v22/dbus"
)

// TestUnmounted: a path needs the mount units for it and above it, as far as there are any.
func TestUnmounted(t *testing.T) {
	if got := mountUnits("/var/lib/my-data"); !slices.Equal(got,
		[]string{"var.mount", "var-lib.mount", `var-lib-my\x2ddata.mount`}) {
		t.Errorf("the mount units are %q", got)
	}
	for name, c := range map[string]struct {
		units []dbus.UnitStatus
		want  string
	}{
		"on the root file system": {[]dbus.UnitStatus{
			{Name: "var.mount", LoadState: "not-found", ActiveState: "inactive"},
			{Name: "var-lib.mount", LoadState: "not-found", ActiveState: "inactive"}}, ""},
		"mounted": {[]dbus.UnitStatus{{Name: "var.mount", LoadState: "loaded", ActiveState: "active"}}, ""},
		"late":    {[]dbus.UnitStatus{{Name: "var.mount", LoadState: "loaded", ActiveState: "inactive"}}, "var.mount"},
		"failed below a mounted one": {[]dbus.UnitStatus{
			{Name: "var.mount", LoadState: "loaded", ActiveState: "active"},
			{Name: "var-lib.mount", LoadState: "loaded", ActiveState: "failed"}}, "var-lib.mount"},
		"masked": {[]dbus.UnitStatus{{Name: "var.mount", LoadState: "masked", ActiveState: "inactive"}}, ""},
	} {
		if got := firstInactive(c.units); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
