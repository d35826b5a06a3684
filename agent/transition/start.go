// Package transition answers how the host moves between roots, and where it arrived. It promises that a switch is recorded
// before it is asked for, and that the host is as before when the request is refused.
package transition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/roots"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Mover moves a host between roots.
type Mover struct {
	*host.Host
	Notes
	Roots roots.Roots
}

// NewArrival returns what moves a host and finds out where it arrived.
func NewArrival(h *host.Host, r roots.Roots) Arrival {
	return Arrival{Mover{Host: h, Notes: Notes{h}, Roots: r}}
}

// AskTime is how long systemd and logind may take to accept a reboot. Neither needs a second.
const AskTime = time.Minute

// Start records a switch and asks for it. Left, when not nil, is why the running root is not taken again by an unattended
// apply. If the request is refused, the record and the machine are as before.
func (m *Mover) Start(ctx context.Context, rec *record.Record, f facts.Facts, s record.Switch, to string, left *record.Bad) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The reboot that is asked for here ends this very process. From here on, SIGTERM must not undo what has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	before, err := rec.Clone()
	if err != nil {
		return err
	}
	stamp := m.ReadStamp()
	m.Describe(&s, f, to)
	if err := m.removeNote(VerdictFile); err != nil { // it is about another switch, perhaps to the same root
		return err
	}
	if left != nil {
		rec.LeaveRoot(f.Root, *left, s.At)
	}
	if err := rec.SetOut(s); err != nil {
		return err
	}
	m.Records.Reserve()
	err = m.announce(rec)
	if err == nil {
		err = m.askForReboot(ctx, rec.Switch)
	}
	if err != nil {
		*rec = *before
		return m.takeBack(ctx, rec, stamp, err)
	}
	m.tellSwitching(rec, f)
	return nil
}

// takeBack restores what was before a switch that was refused.
func (m *Mover) takeBack(ctx context.Context, rec *record.Record, stamp *level.Stamp, refusal error) error {
	// What was asked may have used up the time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	// The guard sees the record and ends.
	err := errors.Join(refusal, m.Machine.Systemd.ReleaseArmUnit(ctx), m.Records.Write(rec))
	if rec.Phase == record.PhaseTrying && stamp != nil { // by which the root is judged
		err = errors.Join(err, m.WriteStamp(*stamp))
	}
	if errors.Is(err, pid1.ErrInhibited) {
		err = fmt.Errorf("%w: %w", record.ErrBlocked, err)
	}
	return err
}

// Describe completes a switch from the root that runs to another one.
func (m *Mover) Describe(s *record.Switch, f facts.Facts, id string) {
	s.Expectation = level.Expectation{
		From: f.Root, Target: id, BootID: f.BootID, SoftReboots: f.SoftReboots, Level: cmp.Or(s.Level, level.Soft),
	}
	s.At = m.Now().UTC()
	s.Deadline = s.At.Add(time.Duration(m.Config.Switch.ShutdownDeadline + m.Config.Health.Deadline))
}

// announce writes the record of a switch before anything is done for it. The userspace that comes next is not the first one
// of this boot, though there may have been nothing to resume when that started.
func (m *Mover) announce(rec *record.Record) error {
	if _, err := m.FirstStart(); err != nil {
		return err
	}
	if err := m.RemoveStamp(); err != nil {
		return err
	}
	if rec.Switch.Level == level.Full {
		if err := m.WriteStamp(level.Stamp{Target: rec.Switch.Target}); err != nil {
			return err
		}
	}
	return m.WriteSwitch(rec)
}

// WriteSwitch writes the record of a switch. One that brings a new root has to find room for it, in both roots.
func (m *Mover) WriteSwitch(rec *record.Record) error {
	if rec.Switch.Verb == record.VerbApply {
		return m.Records.Write(rec)
	}
	return m.Records.WriteOutcome(rec)
}

// askForReboot asks for the reboot. Nothing is armed for a full one: it lands on the mutable host, which goes on from there. A soft
// one has the guard awake and the arming unit held.
func (m *Mover) askForReboot(ctx context.Context, s *record.Switch) error {
	if s.Level == level.Full {
		if err := m.Machine.Mounts.Disarm(); err != nil {
			return err
		}
		return m.Machine.Systemd.FullReboot(ctx)
	}
	// The guard that watched the way here watches the way back: a new one would be started from the root that is bad.
	if s.Verb != record.VerbBack {
		if err := m.Machine.Systemd.StartGuard(ctx); err != nil {
			return err
		}
	}
	if err := m.Machine.Systemd.HoldArmUnit(ctx); err != nil {
		return err
	}
	if s.Verb == record.VerbBack {
		return m.Machine.Systemd.SoftRebootNow(ctx)
	}
	return m.Machine.Systemd.SoftReboot(ctx)
}

func (m *Mover) tellSwitching(rec *record.Record, f facts.Facts) {
	s := rec.Switch
	m.Records.Tell(s.Event(record.EventSwitching, "").WithKernelOf(f))
	m.Log.Info("switching", zap.String("from", f.Root), zap.String("to", s.Target), zap.String("verb", s.Verb), zap.String("level", string(s.Level)))
}

// FirstStart tells whether this is the first userspace since the kernel was booted, and is remembered before anything is
// done: /run is new with each boot.
func (ns *Notes) FirstStart() (bool, error) {
	first, err := ns.Machine.Disk.CreateNew(ns.Path(resumeStamp))
	if err != nil {
		return false, fmt.Errorf("cannot note that the host was started: %w", err)
	}
	return first, nil
}
