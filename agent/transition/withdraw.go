package transition

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// Withdraw takes back a switch that is announced and was never requested, so that it counts as no attempt. No shutdown
// may be under way.
func (m *Mover) Withdraw(ctx context.Context, rec *record.Record) error {
	m.Log.Warn("a switch was recorded but never requested; it is withdrawn", zap.String("root", rec.Switch.Target))
	if err := m.RecordWithdrawal(rec, ""); err != nil {
		return err
	}
	return m.EndArming(ctx, *rec.Switch, "")
}

// RecordWithdrawal records that an announced switch does not happen. This comes before anything else is done to take
// it back, because the arming unit arms nothing then. Stuck is why its shutdown was cancelled, which counts as a
// failure, or "" if the switch was never requested.
func (m *Mover) RecordWithdrawal(rec *record.Record, stuck string) error {
	target := rec.Switch.Target
	if err := rec.Advance(record.CauseWithdrawn); err != nil {
		return err
	}
	record.StayIn(rec, rec.Switch.From)
	if stuck == "" {
		rec.ForgiveAttempt(target)
		if rec.Switch.Verb == record.VerbResume {
			rec.Resume = rec.Resume.Forgive()
		}
	} else {
		rec.CountFailure(target, stuck)
		rec.Last = &record.Result{Outcome: level.Stuck, Reason: stuck, Target: target, At: m.Now().UTC()}
	}
	return m.Records.WriteOutcome(rec)
}

// EndArming waits for the end of the arming unit of a withdrawn switch, and removes its stamp, which would pass for
// that of a switch where systemd does not count soft reboots. The unit may have read the record before the withdrawal
// and written its own after it: then the withdrawal is recorded again. Stuck is as in [Mover.RecordWithdrawal].
func (m *Mover) EndArming(ctx context.Context, withdrawn record.Switch, stuck string) error {
	defer m.Keep.Release(ctx, withdrawn.Units) // whatever is left of ctx, the record comes first
	err := errors.Join(m.Machine.Systemd.ReleaseArmUnit(ctx), m.RemoveStamp(), m.Machine.Groups.Thaw())
	rec, rerr := m.Records.Read()
	if rerr == nil && withdrawn.AnnouncedBy(rec) {
		rerr = m.RecordWithdrawal(rec, stuck)
	}
	return errors.Join(err, rerr)
}
