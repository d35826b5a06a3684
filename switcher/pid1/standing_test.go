package pid1

import (
	"testing"
	"time"
)

// TestService: what systemd answers about a service, and what an older one leaves out.
func TestService(t *testing.T) {
	for name, c := range map[string]struct {
		properties map[string]any
		want       Service
	}{
		"an ordinary one": {
			map[string]any{
				"StateChangeTimestampMonotonic": uint64(5_000_000), "MainPID": uint32(7), "ReloadResult": "success",
				"Conflicts": []string{"shutdown.target"}, "SurviveFinalKillSignal": false,
			},
			Service{Changed: 5 * time.Second, Stops: true, Runs: true},
		},
		"a survivor":       {map[string]any{"SurviveFinalKillSignal": true}, Service{Survives: true}},
		"the journal":      {map[string]any{"Conflicts": []string{"soft-reboot.target"}}, Service{Stops: true}},
		"a failed reload":  {map[string]any{"ReloadResult": "exit-code"}, Service{ReloadFailed: true}},
		"nothing is known": {nil, Service{}},
	} {
		c.want.Name = "x.service"
		if got := service("x.service", c.properties); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
