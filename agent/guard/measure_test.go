package guard

import (
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestMeasureNeverStopsTheGuard: a look that fails in a way nobody thought of, or hangs, costs the measure only.
func TestMeasureNeverStopsTheGuard(t *testing.T) {
	gd := newGuard(t)
	gd.Machine.Observe = func([]string) func() outage.Look { panic("no such thing") }
	measure(&watch{Guard: gd}, nil)(true)
	hang := make(chan struct{})
	defer close(hang)
	gd.Machine.Observe = func([]string) func() outage.Look { <-hang; return nil }
	measure(&watch{Guard: gd}, nil)(false)
}

// TestMeasure: what the looks show is kept with how the switch ended; a switch that never began, and one whose guard is
// ended, leave nothing.
func TestMeasure(t *testing.T) {
	for name, c := range map[string]struct {
		moves, write bool
		want         int
	}{
		"a switch":           {moves: true, write: true, want: 1},
		"it never began":     {write: true},
		"the guard is ended": {moves: true},
	} {
		t.Run(name, func(t *testing.T) {
			gd := newGuard(t)
			looks, enough := make(chan struct{}), make(chan struct{})
			gd.Machine.Observe = func(services []string) func() outage.Look {
				n := 0
				return func() outage.Look {
					if n++; n > 1 {
						select {
						case looks <- struct{}{}:
						case <-enough:
						}
					}
					switch {
					case n < 3 || !c.moves:
						return outage.Look{Mount: 1, Services: services}
					case n < 5:
						return outage.Look{Mount: 2}
					}
					return outage.Look{Mount: 2, Services: services}
				}
			}
			rec := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "v1", "v2")
			rec.Phase, rec.Switch.At = record.PhaseGood, time.Now().Add(-time.Minute)
			rec.Last = &record.Result{Outcome: level.Switched, Target: "v2", At: time.Now()}
			rec.Switch.Before.Running = []string{"nginx.service"}
			if err := gd.Records.Write(rec); err != nil {
				t.Fatal(err)
			}
			end := measure(&watch{Guard: gd, change: *rec.Switch}, nil)
			for range 6 {
				<-looks
			}
			close(enough)
			end(c.write)
			list, err := outage.Read(gd.Machine.Disk, gd.Path(record.StateDir+"/"+outage.File))
			if err != nil || len(list) != c.want {
				t.Fatalf("kept are %+v, %v, want %d", list, err, c.want)
			}
			if c.want == 0 {
				return
			}
			s := list[0]
			if !s.Good || s.Root != "v2" || s.Switched == 0 || s.Outage() <= 0 || len(s.Services) != 1 {
				t.Errorf("kept is %+v", s)
			}
		})
	}
}
