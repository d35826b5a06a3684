package trial

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// rootMounts has a root at /.
type rootMounts struct {
	machine.Mounts
	root string
}

func (r rootMounts) Mounted() (facts.Mounted, error) { return facts.Mounted{Root: r.root}, nil }

// confirmUnit is a PID 1 whose updatectl-confirm.service ends like this.
type confirmUnit struct {
	machine.Systemd
	ends func() error
}

func (c confirmUnit) AwaitConfirm(context.Context) error { return c.ends() }

// TestAwait: whoever waits gets the verdict, or why there is none, and not how an earlier switch ended.
func TestAwait(t *testing.T) {
	earlier := &record.Result{Outcome: level.Unhealthy, Target: "v3", Reason: "a unit failed", At: time.Now()}
	lost := errors.New("connection reset")
	for name, c := range map[string]struct {
		ended  error
		phase  record.Phase // when the unit has ended
		last   *record.Result
		waited bool
		want   error
	}{
		"good":                {phase: record.PhaseGood, waited: true},
		"nothing to wait for": {ended: pid1.ErrNoUnit, phase: record.PhaseTrying},
		"unhealthy": {
			ended: pid1.ErrJob, phase: record.PhaseGood, last: earlier, waited: true, want: record.ErrUnhealthy,
		},
		"it crashed": {ended: pid1.ErrJob, phase: record.PhaseTrying, waited: true, want: record.ErrBlocked},
		"it crashed after a rollback": {
			ended: pid1.ErrJob, phase: record.PhaseTrying, last: earlier, waited: true, want: record.ErrBlocked,
		},
		"systemd does not answer": {ended: lost, phase: record.PhaseTrying, waited: true, want: lost},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTrial(t)
			rec := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1", "v2")
			if err := a.Records.Write(rec); err != nil {
				t.Fatal(err)
			}
			a.Machine.Running, a.Machine.Mounts = true, rootMounts{a.Machine.Mounts, "v2"}
			a.Machine.Systemd = confirmUnit{a.Machine.Systemd, func() error {
				rec.Phase, rec.Last = c.phase, c.last
				return errors.Join(c.ended, a.Records.Write(rec))
			}}
			done, waited, err := a.Await(t.Context())
			if waited != c.waited || !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("waited %v, %v, want %v", waited, err, c.want)
			}
			if good := c.phase == record.PhaseGood && waited; done.Good != good || done.Root != "v2" {
				t.Errorf("the answer is %+v", done)
			}
		})
	}
}
