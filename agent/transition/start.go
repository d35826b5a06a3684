// Package transition answers how the host moves between roots, and where it arrived. It promises that a switch is
// recorded before it is requested, and that host and record are as before when the request is refused.
package transition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/keep"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	unit "github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Mover moves a host between roots.
type Mover struct {
	*host.Host
	Notes
	Roots roots.Roots
	Keep  keep.Keeper
	// StartOnce has the next full reboot start a kernel that is installed.
	StartOnce func(ctx context.Context, entry string) error
}

// NewArrival returns the Arrival of a host.
func NewArrival(h *host.Host, r roots.Roots) Arrival {
	return Arrival{Mover{Host: h, Notes: Notes{h}, Roots: r, Keep: keep.Keeper{Host: h}}}
}

// RequestTimeout is how long systemd and logind may take to accept a request. Neither needs a second.
const RequestTimeout = time.Minute

// Start records a switch from the running root to another one and requests the reboot. Left, when not nil, marks the
// root that is left bad, so that an unattended apply does not switch to it again. When the request is refused, the
// record and the machine are as before; the error is a [record.ErrBlocked] when an inhibitor lock is held.
func (m *Mover) Start(ctx context.Context, rec *record.Record, f facts.Facts, s record.Switch, to string,
	left *record.Bad) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The requested reboot ends this process: from here on, SIGTERM must not interrupt it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	before, err := rec.Clone()
	if err != nil {
		return err
	}
	stamp := m.ReadStamp()
	m.Describe(&s, f, to)
	noteState(m.Host, &s, rec, f, m.Roots.Next(to, f))
	// At a boot, nothing runs yet that could be kept. What is kept over a volatile switch would write to the real state.
	if s.Level != level.Full && s.Verb != record.VerbResume && !s.Volatile && !f.Volatile {
		s.Units = m.Keep.Keepable(ctx, m.Roots.EtcChange(to, f, rec), s.Verb != record.VerbApply)
	}
	if err := m.removeNote(VerdictFile); err != nil { // of an earlier switch, perhaps to the same root
		return err
	}
	if left != nil {
		rec.LeaveRoot(leaves(rec, f.Root, to), *left, s.At)
	}
	if err := rec.BeginSwitch(s); err != nil {
		return err
	}
	m.Records.Reserve()
	err = m.announce(rec)
	if err == nil {
		err = m.requestReboot(ctx, rec.Switch)
	}
	if err != nil {
		units := rec.Switch.Units
		*rec = *before
		return m.restoreAfterRefusal(ctx, rec, stamp, units, err)
	}
	m.reportSwitching(rec, f)
	return nil
}

// leaves returns the root that an operator leaves: the running one, or from the host root the last good one, which an
// unattended apply would resume.
func leaves(rec *record.Record, running, to string) string {
	if last := rec.LastGood(); running == switcher.HostRoot && last != to {
		return last
	}
	return running
}

// restoreAfterRefusal restores record, stamp and units after a refused request, and returns the refusal.
func (m *Mover) restoreAfterRefusal(ctx context.Context, rec *record.Record, stamp *level.Stamp, units []unit.Kept,
	refusal error) error {
	// The request may have used up the time of ctx.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	// The record first: with it, the arming unit arms nothing, and the guard ends.
	err := errors.Join(refusal, m.Records.WriteOutcome(rec), m.Machine.Systemd.ReleaseArmUnit(ctx))
	if rec.Phase == record.PhaseTrying && stamp != nil { // confirm measures the deadline from it
		err = errors.Join(err, m.WriteStamp(*stamp))
	}
	m.Keep.Release(ctx, units)
	if errors.Is(err, pid1.ErrInhibited) {
		err = fmt.Errorf("%w: %w", record.ErrBlocked, err)
	}
	return err
}

// Describe completes a switch from the running root to the root id: what is expected, and when it was requested.
func (m *Mover) Describe(s *record.Switch, f facts.Facts, id string) {
	s.Expectation = level.Expectation{
		From: f.Root, Target: id, BootID: f.BootID, SoftReboots: f.SoftReboots, Level: cmp.Or(s.Level, level.Soft),
		Start: s.Start,
	}
	s.At = m.Now().UTC()
}

// announce records a switch before anything else is done for it. It also notes that userspace was started: the next
// one is not the first since the full reboot, even if the first one had nothing to resume.
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

// WriteSwitch writes the record of a switch. Only an apply may not use the reserved disk space: it fails on a full
// disk instead of taking the space that a rollback needs.
func (m *Mover) WriteSwitch(rec *record.Record) error {
	if rec.Switch.Verb == record.VerbApply {
		return m.Records.Write(rec)
	}
	return m.Records.WriteOutcome(rec)
}

// requestReboot requests the reboot of a switch. A full reboot lands on the host root, so nothing is armed for it. For
// a soft reboot it starts the guard, and the arming unit, which arms the root when it is stopped after every service.
// An error means that nothing is under way, or that systemd does not say.
func (m *Mover) requestReboot(ctx context.Context, s *record.Switch) error {
	if s.Level == level.Full {
		if err := m.Machine.Mounts.Disarm(); err != nil {
			return err
		}
		if s.Start.Entry != "" {
			if err := m.StartOnce(ctx, s.Start.Entry); err != nil {
				return err
			}
		}
		return m.UnlessUnderWay(ctx, m.Machine.Systemd.FullReboot(ctx))
	}
	// The guard of the first switch also watches the switch back: a new one would be started from the bad root.
	if s.Verb != record.VerbBack {
		if err := m.Machine.Systemd.StartGuard(ctx); err != nil {
			return err
		}
	}
	if err := m.Machine.Systemd.HoldArmUnit(ctx); err != nil {
		if s.Verb == record.VerbBack { // the guard may roll back, too: then systemd starts nothing any more
			err = m.UnlessUnderWay(ctx, err)
		}
		return err
	}
	m.Keep.Hold(ctx, s.Units)
	if s.Verb == record.VerbBack {
		return m.UnlessUnderWay(ctx, m.Machine.Systemd.SoftRebootNow(ctx))
	}
	return m.UnlessUnderWay(ctx, m.Machine.Systemd.SoftReboot(ctx))
}

// UnlessUnderWay returns how the request for a reboot ended, nil if the reboot is under way in spite of an error: the
// answer may be lost, or come too late. The switch must stay announced then.
func (ns *Notes) UnlessUnderWay(ctx context.Context, failure error) error {
	if failure == nil || errors.Is(failure, pid1.ErrInhibited) {
		return failure
	}
	// The request may have used up the time of ctx.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
	defer cancel()
	underWay, err := ns.Machine.Systemd.ShuttingDown(ctx)
	if err != nil || !underWay {
		return failure
	}
	ns.Log.Warn("the request for the reboot failed, but a reboot is under way", zap.Error(failure))
	return nil
}

// reportSwitching writes the switch into the history and the log.
func (m *Mover) reportSwitching(rec *record.Record, f facts.Facts) {
	s := rec.Switch
	m.Records.AppendEvent(s.Event(record.EventSwitching, "").WithKernelOf(f))
	m.Log.Info("switching", event.Switching.Field(), zap.String("from", f.Root), zap.String("root", s.Target),
		zap.String("version", s.Version), zap.String("verb", s.Verb), zap.String("level", string(s.Level)))
}

// FirstStart reports whether this is the first start of userspace since the last full reboot. It returns true once: it
// leaves a file in /run, which is empty after each full reboot.
func (ns *Notes) FirstStart() (bool, error) {
	first, err := ns.Machine.Disk.CreateNew(ns.Path(startedFile))
	if err != nil {
		return false, fmt.Errorf("cannot note the start of userspace: %w", err)
	}
	return first, nil
}
