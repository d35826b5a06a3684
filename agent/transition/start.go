package transition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/roots"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Mover moves a host between roots.
type Mover struct {
	*host.Host
	Roots roots.Roots
}

// AskTime is how long systemd and logind may take to accept a reboot. Neither needs a second.
const AskTime = time.Minute

// Start writes down what is about to happen and asks for it. If the request is refused, the record and the machine
// are as before.
func (mv *Mover) Start(ctx context.Context, rec *record.Record, f facts.Facts, s record.Switch, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The reboot that is asked for here ends this very process. From here on, SIGTERM must not undo what has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime)
	defer cancel()
	before, err := mv.Records.Read()
	if err != nil {
		return err
	}
	stamp := ReadStamp(mv.Path(StampFile))
	mv.Describe(&s, f, id)
	if err := RemoveStamp(mv.Path(VerdictFile)); err != nil { // it is of another switch, perhaps to the same root
		return err
	}
	if err := rec.SetOut(s); err != nil {
		return err
	}
	mv.Records.Reserve()
	err = mv.announce(rec)
	if err == nil {
		err = mv.askForReboot(ctx, rec.Switch)
	}
	if err != nil {
		*rec = *before
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AskTime) // what was asked may have used up the other
		defer cancel()
		err = errors.Join(err, mv.Machine.PID1.ReleaseArmUnit(ctx), mv.Records.Write(rec)) // the guard sees the record and ends
		if rec.Phase == record.PhaseTrying && stamp != nil {                               // by which the root is judged
			err = errors.Join(err, mv.WriteStamp(*stamp))
		}
		if errors.Is(err, pid1.ErrInhibited) {
			err = fmt.Errorf("%w: %w", record.ErrBlocked, err)
		}
		return err
	}
	mv.tellSwitching(rec, f)
	return nil
}

// Describe completes a switch from the root that runs to another one.
func (mv *Mover) Describe(s *record.Switch, f facts.Facts, id string) {
	s.Expectation = level.Expectation{
		From: f.Root, Target: id, BootID: f.BootID, SoftReboots: f.SoftReboots, Level: cmp.Or(s.Level, level.Soft),
	}
	s.At = mv.Now().UTC()
	s.Deadline = s.At.Add(time.Duration(mv.Config.Switch.ShutdownDeadline + mv.Config.Health.Deadline))
}

// announce writes the record of a switch before anything is done for it. The userspace that comes next is not the first one
// of this boot, though there may have been nothing to resume when that started.
func (mv *Mover) announce(rec *record.Record) error {
	if _, err := mv.FirstStart(); err != nil {
		return err
	}
	if err := RemoveStamp(mv.Path(StampFile)); err != nil {
		return err
	}
	if rec.Switch.Level == level.Full {
		if err := mv.WriteStamp(level.Stamp{Target: rec.Switch.Target}); err != nil {
			return err
		}
	}
	return mv.WriteSwitch(rec)
}

// WriteSwitch writes the record of a switch. One that brings a new root has to find room for it, in both roots.
func (mv *Mover) WriteSwitch(rec *record.Record) error {
	if rec.Switch.Verb == record.VerbApply {
		return mv.Records.Write(rec)
	}
	return mv.Records.WriteOutcome(rec)
}

// askForReboot asks for the reboot. Nothing is armed for a full one: it lands on the mutable host, which goes on from there. A soft
// one has the guard awake and the arming unit held.
func (mv *Mover) askForReboot(ctx context.Context, s *record.Switch) error {
	if s.Level == level.Full {
		if err := assembly.Disarm(); err != nil {
			return err
		}
		return mv.Machine.PID1.FullReboot(ctx)
	}
	// The guard that watched the way here watches the way back: a new one would be started from the root that is bad.
	if s.Verb != record.VerbBack {
		if err := mv.Machine.PID1.StartGuard(ctx); err != nil {
			return err
		}
	}
	if err := mv.Machine.PID1.HoldArmUnit(ctx); err != nil {
		return err
	}
	if s.Verb == record.VerbBack {
		return mv.Machine.PID1.SoftRebootNow(ctx)
	}
	return mv.Machine.PID1.SoftReboot(ctx)
}

func (mv *Mover) tellSwitching(rec *record.Record, f facts.Facts) {
	s := rec.Switch
	mv.Records.Tell(s.Event("switching", "").WithKernelOf(f))
	mv.Log.Info("switching", zap.String("from", f.Root), zap.String("to", s.Target), zap.String("verb", s.Verb), zap.String("level", string(s.Level)))
}

// FirstStart tells whether this is the first userspace since the kernel was booted, and is remembered before anything is
// done: /run is new with each boot.
func (mv *Mover) FirstStart() (bool, error) {
	file := mv.Path(resumeStamp)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return false, fmt.Errorf("cannot note that the host was started: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot note that the host was started: %w", err)
	}
	return true, f.Close()
}
