package attempt

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestKeep: what the last run that asked the source found stays known after one that did not ask.
func TestKeep(t *testing.T) {
	h := host.On(machine.Host(t.TempDir(), record.StateDir), zap.NewNop())
	hosttest.Prepare(t, h)
	checked := time.Unix(1796003600, 0).UTC()
	for _, c := range []struct {
		name    string
		a       Attempt
		checked time.Time
		level   level.Level
	}{
		{"never asked", Attempt{Reason: "paused"}, time.Time{}, ""},
		{"asked", Attempt{Checked: checked, Staged: "sha256-1", Level: level.Full}, checked, level.Full},
		{"did not ask", Attempt{Reason: "window"}, checked, level.Full},
		{"nothing to do", Attempt{Checked: checked.Add(time.Hour)}, checked.Add(time.Hour), ""},
	} {
		Keep(h, c.a)
		if got := Last(h); got == nil || !got.Checked.Equal(c.checked) || got.Level != c.level || got.Reason != c.a.Reason {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
