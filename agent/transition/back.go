package transition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// RollBack leaves an unhealthy root for the good one before it, which must exist. It always returns a
// [record.ErrUnhealthy], which says what happens next.
func (m *Mover) RollBack(ctx context.Context, f facts.Facts, rec *record.Record, reason string) error {
	to := rec.RollbackTarget()
	m.Log.Error("the root is unhealthy; rolling back", event.Unhealthy.Field(), zap.String("root", f.Root),
		zap.String("version", rec.Switch.Version), zap.String("to", to), zap.String("reason", reason))
	if err := m.Leave(ctx, f, rec, record.Departure{Reason: reason}, false); err != nil {
		return fmt.Errorf("%w: %s: %s; rolling back to %s failed: %w", record.ErrUnhealthy, f.Root, reason, to, err)
	}
	return fmt.Errorf("%w: %s: %s; the host rolls back to %s", record.ErrUnhealthy, f.Root, reason, to)
}

// Leave requests the switch back from a root that is being tried. Named is whether the operator named the root to
// switch to. It leaves a verdict first, so that the guard rolls back when this call fails.
func (m *Mover) Leave(ctx context.Context, f facts.Facts, rec *record.Record, d record.Departure, named bool) error {
	m.Records.AppendEvent(rec.Switch.Event(d.Event(), d.Reason))
	m.LeaveVerdict(f.Root, d)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	s := record.Switch{Verb: record.VerbBack, Named: named}
	m.Describe(&s, f, rec.RollbackTarget())
	return m.switchBack(ctx, f, rec, s, d)
}

// switchBack requests the switch back by a soft reboot or, when that fails or the root was tried on a new kernel, by a
// full reboot.
func (m *Mover) switchBack(ctx context.Context, f facts.Facts, rec *record.Record, s record.Switch,
	d record.Departure) error {
	to := s.Target
	s.Version = m.Roots.VersionOf(to, rec)
	s.State, s.Kept = rec.Switch.State, rec.Switch.Kept // the root that is left may have lost some of it
	ran := rec.Switch.From == to                        // since the last full reboot, so that it is still prepared
	s.Start = rec.Switch.Start                          // the way back leads over a full reboot if that is new
	if ran {
		s.Before, s.Units = rec.Switch.Before, rec.Switch.Units
	}
	if err := rec.BeginRollback(record.CauseUnhealthy, s, d); err != nil {
		return err
	}
	if err := m.announce(rec); err != nil {
		return m.leaveUnrecorded(ctx, err)
	}
	if rec.Switch.OnNewKernel() {
		return m.leaveKernel(ctx, rec)
	}
	var err error
	if !ran { // nothing is written for one that is prepared: the root that is left may have filled the disk
		_, err = m.Roots.MakeReady(to, f, rec)
	}
	if err == nil {
		err = m.requestReboot(ctx, rec.Switch)
	}
	if err != nil {
		return m.fullRebootInstead(ctx, rec, err)
	}
	m.reportSwitching(rec, f)
	return nil
}

// leaveKernel leaves a root that was tried on a new kernel by a full reboot, which starts the kernel before it. The
// host root resumes the last good root then.
func (m *Mover) leaveKernel(ctx context.Context, rec *record.Record) error {
	if err := rec.Advance(record.CauseMissed); err != nil {
		return err
	}
	rec.Last.Reason += "; a full reboot follows, which starts the kernel before it"
	m.KeepWithdrawn(rec.Switch.From) // after the full reboot, the record shows no trial that was left
	return errors.Join(m.Records.WriteOutcome(rec), m.LeaveKernel(ctx, rec.Last.Reason))
}

// LeaveKernel requests a full reboot from a kernel that is not proven, because what it was started for has failed: only
// that starts the kernel before it.
func (m *Mover) LeaveKernel(ctx context.Context, why string) error {
	m.Log.Error("a full reboot follows, which starts the kernel before the new one", event.FullReboot.Field(),
		zap.String("reason", why))
	return m.fullReboot(ctx)
}

// leaveUnrecorded leaves a rollback that cannot be recorded to the guard. Where no guard runs, as with systemd 254 once
// the old root is left, it requests a full reboot, and returns an ErrFullRebootFollows.
func (m *Mover) leaveUnrecorded(ctx context.Context, why error) error {
	if runs, err := m.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit); err != nil || runs {
		return fmt.Errorf("%w; %s will roll back", why, pid1.GuardUnit)
	}
	m.Log.Error("cannot record the rollback, and no guard runs; a full reboot follows", event.FullReboot.Field(),
		zap.String("reason", why.Error()))
	return fmt.Errorf("%w: %w", ErrFullRebootFollows, errors.Join(why, m.fullReboot(ctx)))
}

// Strand records that the host stays in an unhealthy root, because there is no better one. When it was rolled back to
// and has no network, a full reboot follows: it discards what the bad root left in the kernel, such as netfilter
// rules.
func (m *Mover) Strand(ctx context.Context, rec *record.Record, report health.Report) error {
	target, reason, reboot := rec.Switch.Target, report.Reason(), report.CutOff() && rec.MayFullReboot()
	if rec.Switch.Verb == record.VerbBack && rec.Last != nil && rec.Last.Back == target {
		rec.Last.Outcome = level.Unhealthy
		rec.Last.Reason += fmt.Sprintf("; and %s, which the host rolled back to, is unhealthy, too: %s", target, reason)
	} else {
		rec.Last = &record.Result{Outcome: level.Unhealthy, Reason: reason, Target: target, At: m.Now().UTC()}
	}
	if reboot {
		rec.Last.Reason += "; a full reboot follows, to discard what the bad root left in the kernel"
	}
	if err := rec.Advance(record.CauseStranded); err != nil {
		return err
	}
	if err := m.Records.WriteOutcome(rec); err != nil {
		return err
	}
	m.Records.AppendEvent(rec.Switch.Event(record.EventUnhealthy, reason))
	m.Log.Info("the root is unhealthy; there is no better one", event.Unhealthy.Field(),
		zap.String("root", target), zap.String("version", rec.Switch.Version), zap.String("reason", reason))
	err := rec.Last.Err()
	if reboot {
		m.Log.Error("the root that the host rolled back to has no network; a full reboot follows",
			event.FullReboot.Field(), zap.String("reason", reason))
		err = errors.Join(err, m.fullReboot(ctx))
	}
	return err
}

// fullReboot requests a full reboot from systemd and, when that fails, has the kernel reboot at once: the record says
// that no switch is under way, so nobody else would act.
func (m *Mover) fullReboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	err := m.Machine.Systemd.FullRebootNow(ctx)
	if err != nil {
		err = errors.Join(err, m.Machine.Kernel.Reboot())
	}
	return err
}

// FullRebootIfNotBack requests a full reboot when the outcome is that of a switch back that ended in another root:
// after it, the host resumes its last good root. It returns an ErrFullRebootFollows then, and every other outcome as
// it is.
func (m *Mover) FullRebootIfNotBack(ctx context.Context, f facts.Facts, rec *record.Record, outcome error) error {
	if !errors.Is(outcome, ErrSwitch) || rec.Switch.Verb != record.VerbBack || f.Root == rec.Switch.Target {
		return outcome
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	return m.fullRebootInstead(ctx, rec, outcome)
}

// fullRebootInstead requests a full reboot because the switch back failed, and returns an ErrFullRebootFollows. In the
// record no switch is under way then: the full reboot lands on the host root, which resumes the last good root.
func (m *Mover) fullRebootInstead(ctx context.Context, rec *record.Record, why error) error {
	if rec.Phase == record.PhaseArmed {
		if err := rec.Advance(record.CauseMissed); err != nil {
			return err
		}
	}
	rec.Last.Reason += fmt.Sprintf("; rolling back by a soft reboot failed (%v), so a full reboot follows", why)
	m.Log.Error("only a full reboot leads back", event.FullReboot.Field(), zap.NamedError("reason", why))
	m.Records.AppendEvent(rec.Switch.Event(record.EventFailed, why.Error()))
	m.KeepWithdrawn(rec.Switch.From) // after the full reboot, the record shows no trial that was left
	return fmt.Errorf("%w: %w", ErrFullRebootFollows, errors.Join(why, m.Records.WriteOutcome(rec),
		m.Machine.Systemd.ReleaseArmUnit(ctx), m.fullReboot(ctx)))
}

// GuardNote is what a guard that rolls back leaves in /run, because it may be unable to write the record.
type GuardNote struct {
	// Left is the root that did not become good, Version its version, and Mount the number of its mount at /.
	Left    string `json:"left"`
	Version string `json:"version,omitempty"`
	Mount   int    `json:"mount"`
	record.Departure
	// Switch is the switch back.
	Switch record.Switch `json:"switch"`
}

// readNote returns the note of a guard, nil when there is none. A note that is no JSON is not a guard's, which writes
// each in one step: it is removed.
func (ns *Notes) readNote() (*GuardNote, error) {
	n := &GuardNote{}
	text, err := ns.Machine.Disk.ReadFile(ns.Path(GuardNoteFile), maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the note of the guard: %w", err)
	}
	if err := json.Unmarshal(text, n); err != nil {
		ns.Log.Warn("the note of the guard is damaged; it is removed", zap.Error(err))
		return nil, ns.removeNote(GuardNoteFile)
	}
	return n, nil
}

// isLeaving reports whether the root that the guard leaves is still mounted at /, by the same mount.
func (n *GuardNote) isLeaving(now facts.Mounted) bool {
	return now == facts.Mounted{Root: n.Left, Mount: n.Mount}
}

// ErrGuardLeaves means that the guard is about to roll back from the running root.
var ErrGuardLeaves = errors.New("the guard rolls back")

// CheckGuardStays returns an ErrGuardLeaves, which is also a [record.ErrBlocked], while the guard is about to leave
// the running root: what it mounts and records then must not be taken for leftovers.
func (a *Arrival) CheckGuardStays(ctx context.Context) error {
	n, err := a.readNote()
	if err != nil || n == nil {
		return err
	}
	now, err := a.Machine.Mounts.Mounted()
	if err != nil || !n.isLeaving(now) {
		return err
	}
	if lives, err := a.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit); err == nil && !lives {
		return nil
	}
	return fmt.Errorf("%w: %w from %s: %s", record.ErrBlocked, ErrGuardLeaves, n.Left, n.Reason)
}

// MarkLeft marks the root bad that a guard has left, by its note, in a record that knows of no switch.
func (a *Arrival) MarkLeft(f facts.Facts, rec *record.Record) error {
	n, err := a.readNote()
	if n == nil {
		return err
	}
	if n.Switch.BootID == f.BootID && n.Left != f.Root {
		rec.Bad[n.Left] = record.Bad{Reason: n.Reason, At: n.Switch.At, RolledBack: n.RolledBack}
	}
	return nil
}

// takeOverNote writes what a guard did into the record, and then removes its note.
func (a *Arrival) takeOverNote(f facts.Facts, rec *record.Record) error {
	n, err := a.readNote()
	if n == nil {
		return err
	}
	if n.Concerns(rec, f) {
		if err := rec.BeginRollback(record.CauseTakenOver, n.Switch, n.Departure); err != nil {
			return err
		}
		if err := a.Records.WriteOutcome(rec); err != nil {
			return err
		}
	}
	if n.Switch.BootID == f.BootID { // the guard writes no history
		a.Records.AppendEvent(record.Event{
			At: n.Switch.At, Event: n.Event(), Root: n.Left, Version: n.Version, Reason: n.Reason,
		})
		if f.Root != n.Left { // otherwise it is requested again, and appended then
			leaving := n.Switch.Event(record.EventSwitching, "").WithKernelOf(f)
			leaving.At = n.Switch.At
			a.Records.AppendEvent(leaving)
		}
	}
	if err := a.Machine.Disk.Remove(a.Path(GuardNoteFile)); err != nil {
		return fmt.Errorf("cannot remove the note of the guard: %w", err)
	}
	return nil
}

// Concerns reports whether the note is about the switch in the record, and is not yet in the record.
func (n *GuardNote) Concerns(r *record.Record, f facts.Facts) bool {
	return r.Switch != nil && r.Switch.Target == n.Left && n.Switch.BootID == f.BootID &&
		(r.Moving() || r.ArrivedLate(n.Left)) && !r.Switch.At.Equal(n.Switch.At)
}
