package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// goBack leaves a root that did not become good, which has a way back. It returns [ErrUnhealthy], with what comes next.
func (a *Agent) goBack(ctx context.Context, f facts.Facts, rec *Record, reason string) error {
	to := rec.wayBack()
	a.Log.Error("the root is not healthy; the host goes back", zap.String("root", f.Root), zap.String("to", to), zap.String("reason", reason))
	if err := a.leave(ctx, f, rec, "unhealthy", reason, false); err != nil {
		return fmt.Errorf("%w: %s: %s; going back to %s failed: %w", ErrUnhealthy, f.Root, reason, to, err)
	}
	return fmt.Errorf("%w: %s: %s; the host goes back to %s", ErrUnhealthy, f.Root, reason, to)
}

// leave asks for the way back from a root that is being tried. From the verdict on, the guard would go, too.
func (a *Agent) leave(ctx context.Context, f facts.Facts, rec *Record, event, reason string, named bool) error {
	a.tell(rec.Switch.event(event, reason))
	a.leaveVerdict(f.Root, reason)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	s := Switch{Verb: verbBack, Named: named}
	a.describe(&s, f, rec.wayBack())
	return a.returnTo(ctx, f, rec, s, reason)
}

// returnTo asks for the switch back; where that cannot be had, for a full reboot.
func (a *Agent) returnTo(ctx context.Context, f facts.Facts, rec *Record, s Switch, reason string) error {
	to := s.Target
	s.Version = a.versionOf(to, rec)
	ran := rec.Switch.From == to // in this boot of the kernel: it lies ready as it was left
	if ran {
		s.Before = rec.Switch.Before
	}
	if err := rec.retreat(CauseUnhealthy, s, reason); err != nil {
		return err
	}
	if err := a.announce(rec); err != nil {
		return fmt.Errorf("%w; this is left to %s", err, pid1.GuardUnit)
	}
	err := a.prepared(to, f, rec, ran)
	if err == nil {
		err = a.ask(ctx, rec.Switch)
	}
	if err != nil {
		return a.bootInstead(ctx, rec, err)
	}
	a.tellSwitching(rec, f)
	return nil
}

// prepared makes a root ready to be gone back to. One that ran since the kernel was booted needs nothing, and nothing is
// written for it: the root that is left may have filled the disk.
func (a *Agent) prepared(to string, f facts.Facts, rec *Record, ran bool) error {
	if ran {
		return nil
	}
	st, err := a.openStore()
	if err != nil {
		return err
	}
	_, err = a.ready(st, to, f, rec)
	return err
}

// strand records a root that did not become good and cannot be left for a better one: the host stays in it. Where it went
// back to it and is cut off, the kernel is booted, which forgets what the bad root told it, such as netfilter rules.
func (a *Agent) strand(ctx context.Context, rec *Record, report health.Report) error {
	target, reason, boot := rec.Switch.Target, report.Reason(), report.CutOff() && rec.mayBoot()
	if rec.Switch.Verb == verbBack && rec.Last != nil && rec.Last.Back == target {
		rec.Last.Outcome = level.Unhealthy
		rec.Last.Reason += fmt.Sprintf("; and %s, which the host went back to, is not healthy either: %s", target, reason)
	} else {
		rec.Last = &Result{Outcome: level.Unhealthy, Reason: reason, Target: target, At: a.Now().UTC()}
	}
	if boot {
		rec.Last.Reason += "; the kernel is booted to undo what it was told"
	}
	if err := rec.on(CauseStranded); err != nil {
		return err
	}
	if err := a.writeOutcome(rec); err != nil {
		return err
	}
	a.tell(rec.Switch.event("unhealthy", reason))
	err := rec.Last.unhealthy()
	if boot {
		a.Log.Error("the root that was gone back to is cut off; the kernel is booted", zap.String("root", target), zap.String("reason", reason))
		err = errors.Join(err, a.bootKernel(ctx))
	}
	return err
}

// bootKernel asks for a full reboot, and boots without asking where that cannot be had: the record rests, and nobody else
// would.
func (a *Agent) bootKernel(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	err := a.Machine.PID1.FullRebootNow(ctx)
	if err != nil {
		err = errors.Join(err, pid1.BootKernel())
	}
	return err
}

// backOrBoot goes on from a way back that did not lead there: by a full reboot, from which the host resumes its last
// good root. Every other outcome of a switch is for whoever asks.
func (a *Agent) backOrBoot(ctx context.Context, f facts.Facts, rec *Record, outcome error) error {
	if !errors.Is(outcome, ErrSwitch) || rec.Switch.Verb != verbBack || f.Root == rec.Switch.Target {
		return outcome
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	return a.bootInstead(ctx, rec, outcome)
}

// bootInstead asks for a full reboot, because the way back cannot be had. The record rests: a boot of the kernel lands on
// the mutable host, which resumes the last good root.
func (a *Agent) bootInstead(ctx context.Context, rec *Record, why error) error {
	if rec.Phase == PhaseArmed {
		if err := rec.on(CauseMissed); err != nil {
			return err
		}
	}
	rec.Last.Reason += fmt.Sprintf("; the way back failed (%v), so the kernel is booted", why)
	a.Log.Error("cannot go back by a soft reboot; the kernel is booted", zap.Error(why))
	a.tell(rec.Switch.event("failed", why.Error()))
	return fmt.Errorf("%w: %w", ErrBooted, errors.Join(why, a.writeOutcome(rec), a.Machine.PID1.ReleaseArmUnit(ctx), a.bootKernel(ctx)))
}

// backNote is what a guard leaves in /run when it went back: the record may be out of its reach.
type backNote struct {
	// Left is the root that did not become good, Version its version; as which mount it is at /, and Reason why.
	Left    string `json:"left"`
	Version string `json:"version,omitempty"`
	Mount   int    `json:"mount"`
	Reason  string `json:"reason"`
	// Switch is the switch back.
	Switch Switch `json:"switch"`
}

// readNote reads what a guard left, nil when it left nothing.
func (a *Agent) readNote() (*backNote, error) {
	n := &backNote{}
	text, err := os.ReadFile(a.path(backFile))
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
func (n *backNote) leaves(now facts.Mounted) bool {
	return now == facts.Mounted{Root: n.Left, Mount: n.Mount}
}

var errGuardLeaves = errors.New("the guard goes back")

// guardLeaves is an error while the guard is about to leave the root that runs: what it mounts and records is not to be
// taken for leftovers.
func (a *Agent) guardLeaves(ctx context.Context) error {
	n, err := a.readNote()
	if err != nil || n == nil {
		return err
	}
	now, err := facts.LookAtRoot()
	if err != nil || !n.leaves(now) {
		return err
	}
	if lives, err := a.Machine.PID1.UnitActive(ctx, pid1.GuardUnit); err == nil && !lives {
		return nil
	}
	return fmt.Errorf("%w: %w from %s: %s", ErrBlocked, errGuardLeaves, n.Left, n.Reason)
}

// takeOver brings what a guard did into the record. The note goes once the record has it.
func (a *Agent) takeOver(f facts.Facts, rec *Record) error {
	file := a.path(backFile)
	n, err := a.readNote()
	if n == nil {
		return err
	}
	if n.concerns(rec, f) {
		if err := rec.retreat(CauseTakenOver, n.Switch, n.Reason); err != nil {
			return err
		}
		if err := a.writeOutcome(rec); err != nil {
			return err
		}
	}
	if n.Switch.BootID == f.BootID { // the guard has written no history
		a.tell(Event{At: n.Switch.At, Event: "unhealthy", Root: n.Left, Version: n.Version, Reason: n.Reason})
		leaving := n.Switch.event("switching", "").on(f)
		leaving.At = n.Switch.At
		a.tell(leaving)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot take over what the guard left: %w", err)
	}
	return nil
}

// concerns tells whether a note is of the switch that the record is in, and the record does not have it yet.
func (n *backNote) concerns(r *Record, f facts.Facts) bool {
	return r.Switch != nil && r.Switch.Target == n.Left && n.Switch.BootID == f.BootID &&
		(r.moving() || r.late(n.Left)) && !r.Switch.At.Equal(n.Switch.At)
}

// verdict is why confirm wants to leave the running root. It lies in /run, so that the guard, which acts when confirm
// cannot, can say so.
type verdict struct {
	Root   string    `json:"root"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

func (a *Agent) leaveVerdict(root, reason string) {
	text, err := json.Marshal(verdict{Root: root, Reason: reason, At: a.Now().UTC()})
	if err == nil {
		err = writeAtomically(a.path(verdictFile), text, 0o600)
	}
	if err != nil {
		a.Log.Warn("cannot leave the verdict for the guard", zap.Error(err))
	}
}

// readVerdict is why confirm found a root not healthy, "" where it has not said so.
func readVerdict(file, root string) string {
	var v verdict
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &v) != nil || v.Root != root {
		return ""
	}
	return v.Reason
}
