package systemd

import (
	"fmt"
	"testing"
	"time"
)

// TestDetails: the properties are those that systemd has on the bus.
func TestDetails(t *testing.T) {
	unit := map[string]any{
		"LoadState": "loaded", "ActiveState": "inactive", "Transient": false, "ConditionResult": true,
		"ConditionTimestampMonotonic": uint64(5), "TriggeredBy": []string{"a.timer"},
		"WantedBy": []string{"multi-user.target", "dev-md0.device"}, "RequiredBy": []string{"b.service"},
	}
	service := map[string]any{"Result": "success", "ExecMainExitTimestampMonotonic": uint64(2_000_000), "BusName": "a.b"}
	want := Details{Exists: true, OnBus: true, TriggeredBy: []string{"a.timer"},
		WantedBy: []string{"multi-user.target", "b.service"}, Ended: 2 * time.Second}
	if got := detailsFrom(unit, service); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	unit["ConditionResult"], unit["LoadState"], service["Result"] = false, "masked", "exit-code"
	if got := detailsFrom(unit, service); got.Exists || !got.Declined || got.Ended != 0 {
		t.Errorf("got %+v", got)
	}
	if got := detailsFrom(nil, nil); fmt.Sprint(got) != fmt.Sprint(Details{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
