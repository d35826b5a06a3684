package transition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// IsFileError tells whether a file could not be read or written.
func IsFileError(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	return errors.As(err, &path) || errors.As(err, &link)
}

var ErrForeign = errors.New("somebody else armed")

// Arrival finds out where a host arrived, and moves it on where that is not where it was sent.
type Arrival struct{ Mover }

// DisarmLeftover takes away a root that this agent armed and systemd did not move into. Left armed, it would turn an
// administrator's reboot into a soft one. What somebody else armed is theirs.
func (a *Arrival) DisarmLeftover(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := a.CheckGuardStays(ctx); err != nil { // what it mounts is none
		return err
	}
	underWay, err := a.Machine.Systemd.ShuttingDown(ctx)
	if err != nil {
		return err
	}
	armed, err := a.Machine.Mounts.Armed()
	if err != nil {
		return err
	}
	if underWay {
		if armed != "" {
			return fmt.Errorf("%w: a soft reboot into %s is under way", record.ErrBlocked, armed)
		}
		return nil
	}
	if err := a.Machine.Mounts.Clear(); err != nil {
		return err
	}
	stamp := a.ReadStamp()
	// The mutable host is armed under the name of its disk. Once the host is there, it is not armed any more.
	toHost := rec.Phase == record.PhaseArmed && rec.Switch.Target == switcher.HostRoot ||
		stamp != nil && stamp.Error == "" && stamp.Target == switcher.HostRoot
	ours := strings.HasPrefix(armed, "sha256-") || toHost && f.Root != switcher.HostRoot
	switch {
	case armed == "":
		return nil
	case !ours:
		return fmt.Errorf("%w: %w %s at %s; unmount it or let it happen first", record.ErrBlocked, ErrForeign, armed, switcher.NextRoot)
	}
	a.Log.Warn("a root was left armed; it is disarmed", zap.String("root", armed))
	return a.Machine.Mounts.Disarm()
}

// Reconcile brings the record into line with what is mounted at /. A switch that failed is recorded and returned as an
// error once; the next command finds it in the record only.
func (a *Arrival) Reconcile(ctx context.Context, f facts.Facts, rec *record.Record) error {
	if err := a.takeOver(f, rec); err != nil {
		return err
	}
	defer func() {
		if !rec.Moving() {
			a.Roots.RestoreEtcs(f)
		}
	}()
	if rec.ArrivedLate(f.Root) {
		a.Log.Warn("the switch was taken back, and came all the same", zap.String("root", f.Root))
		if err := rec.Advance(record.CauseLate); err != nil {
			return err
		}
	}
	switch rec.Phase {
	case record.PhaseArmed:
		return a.proveSwitch(ctx, f, rec)
	case record.PhaseTrying:
		if f.Root != rec.Switch.Target {
			return a.recordGiveUp(rec, record.CauseLeft, level.Rebooted, fmt.Sprintf("the host left %s before it was good; %s is mounted at /", rec.Switch.Target, f.Root))
		}
	}
	return nil
}

func (a *Arrival) proveSwitch(ctx context.Context, f facts.Facts, rec *record.Record) error {
	outcome, reason := level.Prove(rec.Switch.Expectation, f, a.ReadStamp())
	switch outcome {
	case level.Switched:
		if err := rec.Advance(record.CauseArrived); err != nil {
			return err
		}
		delete(rec.Failed, rec.Switch.Target)
		// Going back, and going on after a boot, are the end of a switch that is told already; but for one that did not get
		// there the time before.
		again := rec.Switch.Verb == record.VerbResume && rec.Last != nil && rec.Last.Target == rec.Switch.Target
		if rec.Last == nil || again || rec.Switch.Verb != record.VerbBack && rec.Switch.Verb != record.VerbResume {
			rec.Last = &record.Result{Outcome: outcome, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
		}
		return errors.Join(a.WriteSwitch(rec), a.Machine.Systemd.ForgetGone(ctx))
	case level.Pending:
		return a.takeBackPending(ctx, rec)
	case level.Landed:
		return a.recordLanding(ctx, rec, reason)
	case level.Rebooted:
		if f.BootID != rec.Switch.BootID {
			break
		}
		if err := a.CheckNotUnderWay(ctx, rec); err != nil { // it is being armed just now
			return err
		}
	}
	return a.recordGiveUp(rec, record.CauseMissed, outcome, reason)
}

// CheckNotUnderWay is an error while systemd is on its way into the switch.
func (a *Arrival) CheckNotUnderWay(ctx context.Context, rec *record.Record) error {
	underWay, err := a.Machine.Systemd.ShuttingDown(ctx)
	if err == nil && underWay {
		err = fmt.Errorf("%w: the switch to %s is under way", record.ErrBlocked, rec.Switch.Target)
	}
	return err
}

// takeBackPending is a switch that has not happened. Either systemd is on its way, or the agent was killed between writing the
// record and asking.
func (a *Arrival) takeBackPending(ctx context.Context, rec *record.Record) error {
	if err := a.CheckNotUnderWay(ctx, rec); err != nil {
		return err
	}
	if rec.Switch.Verb == record.VerbBack { // taken back, it would leave the host in the root that did not become good
		return a.goOnBack(ctx, rec)
	}
	if err := a.Machine.Systemd.ReleaseArmUnit(ctx); err != nil {
		return err
	}
	a.Log.Warn("a switch was prepared and never asked for; it is taken back", zap.String("root", rec.Switch.Target))
	if err := rec.Advance(record.CauseWithdrawn); err != nil {
		return err
	}
	rec.ForgiveAttempt(rec.Switch.Target)
	return a.Records.WriteOutcome(rec)
}

// goOnBack asks for a rollback that was recorded and never asked for. It returns an [record.ErrBlocked] once that is under
// way, and an [ErrBooted] where only a full reboot leads back.
func (a *Arrival) goOnBack(ctx context.Context, rec *record.Record) error {
	a.Log.Warn("a rollback was prepared and never asked for; it goes on", zap.String("root", rec.Switch.Target))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	if err := a.askForReboot(ctx, rec.Switch); err != nil {
		return a.fullRebootInstead(ctx, rec, err)
	}
	return fmt.Errorf("%w: the rollback to %s is under way", record.ErrBlocked, rec.Switch.Target)
}

// recordLanding records that the kernel was booted for a switch and nothing has gone on from the host yet. Whoever goes on does it
// by a soft reboot, which is a switch of its own.
func (a *Arrival) recordLanding(ctx context.Context, rec *record.Record, reason string) error {
	if err := a.CheckNotUnderWay(ctx, rec); err != nil {
		return err
	}
	a.Log.Warn(reason + "; `updatectl apply` does")
	if err := rec.Advance(record.CauseLanded); err != nil {
		return err
	}
	rec.ForgiveAttempt(rec.Switch.Target) // going on is the attempt
	rec.Last = &record.Result{Outcome: level.Landed, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
	if err := a.Records.WriteOutcome(rec); err != nil {
		return err
	}
	a.Records.Tell(rec.Switch.Event(record.EventLanded, reason))
	return nil
}

// recordGiveUp records a switch that failed.
func (a *Arrival) recordGiveUp(rec *record.Record, c record.Cause, outcome level.Outcome, reason string) error {
	now := a.Now().UTC()
	if err := rec.GiveUp(c, outcome, reason, now); err != nil {
		return err
	}
	if err := a.Records.WriteOutcome(rec); err != nil {
		return err
	}
	a.Records.Tell(rec.Switch.Event(record.EventFailed, reason))
	if bad, isBad := rec.Bad[rec.Switch.Target]; isBad && bad.At.Equal(now) && bad.Reason != reason {
		a.Records.Tell(rec.Switch.Event(record.EventBad, bad.Reason))
	}
	if rec.Switch.Verb == record.VerbBack && outcome == level.Rebooted {
		return nil // the bad root is left, by another way
	}
	return fmt.Errorf("%w: %s", ErrSwitch, reason)
}
