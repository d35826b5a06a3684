package transition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// GoBack leaves an unhealthy root, which has a way back. It returns an [record.ErrUnhealthy] that says what comes next.
func (m *Mover) GoBack(ctx context.Context, f facts.Facts, rec *record.Record, reason string) error {
	to := rec.WayBack()
	m.Log.Error("the root is unhealthy; the host goes back",
		zap.String("root", f.Root), zap.String("to", to), zap.String("reason", reason))
	if err := m.Leave(ctx, f, rec, record.Departure{Reason: reason}, false); err != nil {
		return fmt.Errorf("%w: %s: %s; going back to %s failed: %w", record.ErrUnhealthy, f.Root, reason, to, err)
	}
	return fmt.Errorf("%w: %s: %s; the host goes back to %s", record.ErrUnhealthy, f.Root, reason, to)
}

// Leave asks for the way back from a root that is being tried. Named says that the operator named where it leads. Once the
// verdict is there, the guard goes back when this does not.
func (m *Mover) Leave(ctx context.Context, f facts.Facts, rec *record.Record, d record.Departure, named bool) error {
	m.Records.Tell(rec.Switch.Event(d.Event(), d.Reason))
	m.LeaveVerdict(f.Root, d)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	s := record.Switch{Verb: record.VerbBack, Named: named}
	m.Describe(&s, f, rec.WayBack())
	return m.returnTo(ctx, f, rec, s, d)
}

// returnTo asks for the switch back; where that cannot be had, for a full reboot.
func (m *Mover) returnTo(ctx context.Context, f facts.Facts, rec *record.Record, s record.Switch, d record.Departure) error {
	to := s.Target
	s.Version = m.Roots.VersionOf(to, rec)
	ran := rec.Switch.From == to // in this boot of the kernel: it lies ready as it was left
	if ran {
		s.Before = rec.Switch.Before
	}
	if err := rec.Retreat(record.CauseUnhealthy, s, d); err != nil {
		return err
	}
	if err := m.announce(rec); err != nil {
		return fmt.Errorf("%w; this is left to %s", err, pid1.GuardUnit)
	}
	err := m.prepared(to, f, rec, ran)
	if err == nil {
		err = m.askForReboot(ctx, rec.Switch)
	}
	if err != nil {
		return m.fullRebootInstead(ctx, rec, err)
	}
	m.tellSwitching(rec, f)
	return nil
}

// prepared makes a root ready to be gone back to. One that ran since the kernel was booted needs nothing, and nothing is
// written for it: the root that is left may have filled the disk.
func (m *Mover) prepared(to string, f facts.Facts, rec *record.Record, ran bool) error {
	if ran {
		return nil
	}
	_, err := m.Roots.MakeReady(to, f, rec)
	return err
}

// Strand records a root that did not become good and cannot be left for a better one: the host stays in it. Where it went
// back to it and is cut off, the kernel is booted, which forgets what the bad root told it, such as netfilter rules.
func (m *Mover) Strand(ctx context.Context, rec *record.Record, report health.Report) error {
	target, reason, boot := rec.Switch.Target, report.Reason(), report.CutOff() && rec.MayFullReboot()
	if rec.Switch.Verb == record.VerbBack && rec.Last != nil && rec.Last.Back == target {
		rec.Last.Outcome = level.Unhealthy
		rec.Last.Reason += fmt.Sprintf("; and %s, which the host went back to, is not healthy either: %s", target, reason)
	} else {
		rec.Last = &record.Result{Outcome: level.Unhealthy, Reason: reason, Target: target, At: m.Now().UTC()}
	}
	if boot {
		rec.Last.Reason += "; the kernel is booted to undo what it was told"
	}
	if err := rec.Advance(record.CauseStranded); err != nil {
		return err
	}
	if err := m.Records.WriteOutcome(rec); err != nil {
		return err
	}
	m.Records.Tell(rec.Switch.Event(record.EventUnhealthy, reason))
	err := rec.Last.Err()
	if boot {
		m.Log.Error("the root that was gone back to is cut off; the kernel is booted", zap.String("root", target), zap.String("reason", reason))
		err = errors.Join(err, m.fullReboot(ctx))
	}
	return err
}

// fullReboot asks for a full reboot, and boots without asking where that cannot be had: the record rests, and nobody else
// would.
func (m *Mover) fullReboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	err := m.Machine.Systemd.FullRebootNow(ctx)
	if err != nil {
		err = errors.Join(err, m.Machine.Kernel.Reboot())
	}
	return err
}

// BackOrFullReboot goes on from a way back that did not lead there: by a full reboot, from which the host resumes its last
// good root. Every other outcome of a switch is for whoever asks.
func (m *Mover) BackOrFullReboot(ctx context.Context, f facts.Facts, rec *record.Record, outcome error) error {
	if !errors.Is(outcome, ErrSwitch) || rec.Switch.Verb != record.VerbBack || f.Root == rec.Switch.Target {
		return outcome
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	return m.fullRebootInstead(ctx, rec, outcome)
}

// fullRebootInstead asks for a full reboot, because the way back cannot be had. The record rests: a boot of the kernel lands on
// the mutable host, which resumes the last good root.
func (m *Mover) fullRebootInstead(ctx context.Context, rec *record.Record, why error) error {
	if rec.Phase == record.PhaseArmed {
		if err := rec.Advance(record.CauseMissed); err != nil {
			return err
		}
	}
	rec.Last.Reason += fmt.Sprintf("; the way back failed (%v), so the kernel is booted", why)
	m.Log.Error("cannot go back by a soft reboot; the kernel is booted", zap.Error(why))
	m.Records.Tell(rec.Switch.Event(record.EventFailed, why.Error()))
	return fmt.Errorf("%w: %w", ErrBooted, errors.Join(why, m.Records.WriteOutcome(rec), m.Machine.Systemd.ReleaseArmUnit(ctx), m.fullReboot(ctx)))
}

// GuardNote is what a guard leaves in /run when it went back: the record may be out of its reach.
type GuardNote struct {
	// Left is the root that did not become good, Version its version; as which mount it is at /, and Reason why.
	Left    string `json:"left"`
	Version string `json:"version,omitempty"`
	Mount   int    `json:"mount"`
	record.Departure
	// Switch is the switch back.
	Switch record.Switch `json:"switch"`
}

// readNote reads what a guard left, nil when it left nothing.
func (ns *Notes) readNote() (*GuardNote, error) {
	n := &GuardNote{}
	text, err := ns.Machine.Disk.ReadFile(ns.Path(BackFile), maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, n)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what the guard left: %w", err)
	}
	return n, nil
}

// leaves tells whether the root that the guard leaves is mounted at / still, and was not come back to.
func (n *GuardNote) leaves(now facts.Mounted) bool {
	return now == facts.Mounted{Root: n.Left, Mount: n.Mount}
}

var ErrGuardLeaves = errors.New("the guard goes back")

// CheckGuardStays is an error while the guard is about to leave the root that runs: what it mounts and records is not to be
// taken for leftovers.
func (a *Arrival) CheckGuardStays(ctx context.Context) error {
	n, err := a.readNote()
	if err != nil || n == nil {
		return err
	}
	now, err := a.Machine.Mounts.Mounted()
	if err != nil || !n.leaves(now) {
		return err
	}
	if lives, err := a.Machine.Systemd.UnitActive(ctx, pid1.GuardUnit); err == nil && !lives {
		return nil
	}
	return fmt.Errorf("%w: %w from %s: %s", record.ErrBlocked, ErrGuardLeaves, n.Left, n.Reason)
}

// takeOver brings what a guard did into the record. The note goes once the record has it.
func (a *Arrival) takeOver(f facts.Facts, rec *record.Record) error {
	n, err := a.readNote()
	if n == nil {
		return err
	}
	if n.Concerns(rec, f) {
		if err := rec.Retreat(record.CauseTakenOver, n.Switch, n.Departure); err != nil {
			return err
		}
		if err := a.Records.WriteOutcome(rec); err != nil {
			return err
		}
	}
	if n.Switch.BootID == f.BootID { // the guard has written no history
		a.Records.Tell(record.Event{At: n.Switch.At, Event: n.Event(), Root: n.Left, Version: n.Version, Reason: n.Reason})
		leaving := n.Switch.Event(record.EventSwitching, "").WithKernelOf(f)
		leaving.At = n.Switch.At
		a.Records.Tell(leaving)
	}
	if err := a.Machine.Disk.Remove(a.Path(BackFile)); err != nil {
		return fmt.Errorf("cannot take over what the guard left: %w", err)
	}
	return nil
}

// Concerns tells whether a note is of the switch that the record is in, and the record does not have it yet.
func (n *GuardNote) Concerns(r *record.Record, f facts.Facts) bool {
	return r.Switch != nil && r.Switch.Target == n.Left && n.Switch.BootID == f.BootID &&
		(r.Moving() || r.ArrivedLate(n.Left)) && !r.Switch.At.Equal(n.Switch.At)
}
