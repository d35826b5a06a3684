package trial

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// IsLost reports whether an image root runs and there is no record, so that nothing is known about the other roots.
func (t *Trial) IsLost(f facts.Facts) bool {
	return t.Machine.Running && f.Root != switcher.HostRoot && !t.Records.IsThere()
}

// guardLeaves is how long a guard takes to end once the host is back in the root that it guards.
const guardLeaves = 30 * time.Second

// adopt begins a new record for a host that has lost its own: the running root is good if it is healthy now. Where a
// guard watches a switch whose record is lost, it rolls back, and the root that it returns to begins the record. The
// error is a [record.ErrLost], which may be a [record.ErrUnhealthy], too.
func (t *Trial) adopt(ctx context.Context, f facts.Facts, rec *record.Record) (Confirmed, error) {
	for began := t.Now(); ; {
		guarded, err := t.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit)
		if err != nil {
			return Confirmed{Root: f.Root}, fmt.Errorf("%w: %w", record.ErrLost, err)
		}
		if !guarded {
			break
		}
		if t.Now().Sub(began) > guardLeaves || ctx.Err() != nil {
			return Confirmed{Root: f.Root}, fmt.Errorf("%w: %s rolls back", record.ErrLost, pid1.GuardUnit)
		}
		time.Sleep(time.Second)
	}
	report := t.Gate().Run(ctx, health.Before{Unknown: true})
	if err := ctx.Err(); err != nil {
		return Confirmed{Root: f.Root}, fmt.Errorf("cannot finish the health checks of %s: %w", f.Root, err)
	}
	done := Confirmed{Root: f.Root, Health: &Report{Root: f.Root, Healthy: report.Healthy(), Report: report}}
	if !report.Healthy() {
		return done, fmt.Errorf("%w: %w: %s: %s", record.ErrLost, record.ErrUnhealthy, f.Root, report.Reason())
	}
	rec.Phase, rec.Good = record.PhaseGood, append(rec.Good, f.Root)
	if err := t.Transition.MarkLeft(f, rec); err != nil {
		return done, err
	}
	if err := t.Records.WriteOutcome(rec); err != nil {
		return done, err
	}
	t.Log.Warn("the record was gone; a new one begins with the running root", zap.String("root", f.Root))
	const reason = "the record was gone; a new one begins here"
	t.Records.AppendEvent(record.Event{Event: record.EventGood, Root: f.Root, Reason: reason})
	done.Good = true
	return done, nil
}
