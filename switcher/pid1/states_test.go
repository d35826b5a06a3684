package pid1

import (
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/dbus"
)

// TestStatesOf: an alias keeps the name by which it was asked for, and an answer about other units is none.
func TestStatesOf(t *testing.T) {
	names := []string{"nftables.service", "iptables.service"}
	answer := []dbus.UnitStatus{
		{Name: "nftables.service", LoadState: "loaded", ActiveState: "inactive", JobId: 7, JobType: "start"},
		{Name: "netfilter-persistent.service", LoadState: "loaded", ActiveState: "active"},
	}
	got, err := statesOf(names, answer)
	want := []UnitState{{"nftables.service", "loaded", "inactive", true}, {"iptables.service", "loaded", "active", false}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the states are %v (%v), want %v", got, err, want)
	}
	if _, err := statesOf(names, answer[:1]); err == nil || !strings.Contains(err.Error(), "of 2 units: it names 1") {
		t.Errorf("an answer about one unit of two: %v", err)
	}
}
