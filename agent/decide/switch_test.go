package decide

import (
	"errors"
	"testing"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
)

// TestSwitchTo has every case of SwitchTo.
func TestSwitchTo(t *testing.T) {
	unhealthy, left := record.Bad{Reason: "no network"}, record.Bad{Reason: record.RolledBack, RolledBack: true}
	for name, c := range map[string]struct {
		to    string
		bad   record.Bad // of that root
		retry bool

		do  Act
		err error
	}{
		"to a good root":                   {to: "v1", do: Switch},
		"to a root that never ran":         {to: "v3", do: Switch},
		"it runs":                          {to: "v2", do: Nothing},
		"it runs and is bad":               {to: "v2", bad: unhealthy, do: Nothing},
		"it was left":                      {to: "v3", bad: left, do: Switch},
		"it was given up":                  {to: "v3", bad: unhealthy, do: Refuse, err: record.ErrGivenUp},
		"it was given up, and is wanted":   {to: "v3", bad: unhealthy, retry: true, do: Switch},
		"it was given up, and good before": {to: "v1", bad: unhealthy, do: Refuse, err: record.ErrGivenUp},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &record.Record{Phase: record.PhaseGood, Good: []string{switcher.HostRoot, "v1", "v2"}}
			if c.bad != (record.Bad{}) {
				rec.Bad = map[string]record.Bad{c.to: c.bad}
			}
			d := SwitchTo("v2", rec, c.to, c.retry)
			if d.Do != c.do || d.To != c.to || !errors.Is(d.Err, c.err) {
				t.Errorf("the decision is %+v, want %s and %v", d, c.do, c.err)
			}
		})
	}
}
