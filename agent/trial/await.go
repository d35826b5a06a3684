package trial

import (
	"context"
	"errors"
	"fmt"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Await returns how the trial of the running root ends, as [Trial.Confirm] does, and judges nothing: it waits until
// updatectl-confirm.service has judged, which it starts if need be. Whoever stops to wait stops nothing else. It
// reports false when there is nothing to wait for, so that Confirm answers: no root is being tried, or there is no such
// unit here.
func (t *Trial) Await(ctx context.Context) (Confirmed, bool, error) {
	root, tried, err := t.onTrial()
	if err != nil || !tried {
		return Confirmed{Root: root}, false, err
	}
	ended := t.Machine.Systemd.AwaitConfirm(ctx)
	switch {
	case errors.Is(ended, pid1.ErrNoUnit):
		return Confirmed{Root: root}, false, nil
	case ctx.Err() != nil:
		return Confirmed{Root: root}, true, fmt.Errorf("cannot wait for the verdict on %s: %w", root, ctx.Err())
	}
	rec, err := t.Records.Read()
	if err != nil {
		return Confirmed{Root: root}, true, err
	}
	volatile := rec.Switch != nil && rec.Switch.Volatile && rec.Switch.Target == root
	done := Confirmed{Root: root, Good: !rec.Moving() && rec.LastGood() == root && !volatile, Last: rec.Last,
		Volatile: volatile, Healthy: volatile && !rec.Moving() && rec.Healthy == root}
	if report := t.LastReport(); report != nil && report.Root == root {
		done.Health = report
	}
	switch {
	case rec.Phase == record.PhaseTrying && (ended == nil || errors.Is(ended, pid1.ErrJob)):
		return done, true, fmt.Errorf("%w: %s ended without a verdict on %s; look at `journalctl -u %s`",
			record.ErrBlocked, pid1.ConfirmUnit, root, pid1.ConfirmUnit)
	case rec.Phase == record.PhaseTrying: // the last result is that of an earlier switch
		return done, true, fmt.Errorf("cannot wait for the verdict on %s: %w", root, ended)
	case rec.Last != nil && rec.Last.Outcome == level.Unhealthy:
		return done, true, rec.Last.Err()
	}
	return done, true, ended
}

// onTrial returns the running root, and whether it is to be judged.
func (t *Trial) onTrial() (root string, tried bool, err error) {
	root, err = t.Machine.MountedRoot()
	if err != nil || !t.Machine.Running {
		return root, false, err
	}
	if t.IsLost(facts.Facts{Root: root}) {
		return root, false, nil
	}
	rec, err := t.Records.Read()
	if err != nil {
		return root, false, err
	}
	return root, rec.Moving() && rec.Switch.Target == root || rec.ArrivedLate(root), nil
}
