package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// Confirmed is the answer of confirm.
type Confirmed struct {
	Root string `json:"root"`
	// Good tells that the running root counts as good.
	Good bool `json:"good"`
	// Last is how the last switch ended, nil when there was none.
	Last *Result `json:"last,omitempty"`
	// Health is the report about the root, when this run of confirm made one.
	Health *HealthReport `json:"health,omitempty"`
}

// Confirm runs in every root once it is up. After a switch it proves that the host is where it was sent, and marks the
// root good when it is healthy; when it is not, it goes back. A switch that ended elsewhere is an error, told once; one
// that ended in going back is an error until the next switch.
func (a *Agent) Confirm(ctx context.Context) (Confirmed, error) {
	if err := a.requireLive(); err != nil {
		return Confirmed{}, err
	}
	unlock, err := a.lock(ctx, "confirm", true)
	if err != nil {
		return Confirmed{}, err
	}
	defer unlock()
	const tries, pause = 10, 2 * time.Second // as long as systemd may take to be executed anew on a slow machine
	for range tries - 1 {
		done, err := a.confirm(ctx)
		if err == nil || !a.passing(err) {
			return done, err
		}
		a.Log.Warn("cannot confirm; it is tried again", zap.Error(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return done, err
		}
	}
	return a.confirm(ctx)
}

// passing tells whether an error that leaves a root unjudged may be one of the moment, such as a systemd that does not
// answer. What confirm finds out about roots and files is none.
func (a *Agent) passing(err error) bool {
	if rec, rerr := a.readRecord(); rerr != nil || !rec.moving() {
		return false
	}
	for _, known := range []error{ErrUnhealthy, ErrSwitch, ErrBlocked, context.Canceled} {
		if errors.Is(err, known) {
			return false
		}
	}
	return !ofFiles(err)
}

func (a *Agent) confirm(ctx context.Context) (Confirmed, error) {
	facts, rec, err := a.look(ctx)
	if err != nil {
		return Confirmed{}, err
	}
	err = a.disarmLeftover(ctx, facts, rec)
	if errors.Is(err, errForeign) && rec.moving() { // the guard would go back from a root that nobody has judged
		a.Log.Warn("the root is judged all the same", zap.Error(err))
		err = nil
	}
	if err == nil {
		err = a.backOrBoot(ctx, facts, rec, a.reconcile(ctx, facts, rec))
	}
	a.notePast(facts.Root)
	done := Confirmed{Root: facts.Root}
	if err == nil && rec.Phase == PhaseTrying {
		err = a.decideTrying(ctx, facts, rec)
		done.Health = a.lastReport()
	}
	a.complain(ctx, facts, rec, err)
	done.Good, done.Last = err == nil && rec.good() == facts.Root, rec.Last
	if err == nil && rec.Last != nil && rec.Last.Outcome == level.Unhealthy {
		err = rec.Last.unhealthy()
	}
	return done, err
}

// complain leaves it to the guard to go back from a root in which confirm cannot do its work: where the record cannot be
// written, no root becomes good. Anything else may come right: systemd starts confirm again, and the deadline is not over.
func (a *Agent) complain(ctx context.Context, f facts.Facts, rec *Record, err error) {
	if ctx.Err() != nil || !rec.moving() || rec.Switch.Target != f.Root || errors.Is(err, ErrUnhealthy) || !ofFiles(err) {
		return
	}
	a.leaveVerdict(f.Root, "updatectl confirm failed: "+err.Error())
}

// ofFiles tells whether a file could not be read or written.
func ofFiles(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	return errors.As(err, &path) || errors.As(err, &link)
}

// unhealthy is what a switch that ended in going back is told as.
func (r Result) unhealthy() error {
	if r.Back == "" {
		return fmt.Errorf("%w: %s: %s; there is no other good root to go back to", ErrUnhealthy, r.Target, r.Reason)
	}
	return fmt.Errorf("%w: %s: %s; the host went back to %s", ErrUnhealthy, r.Target, r.Reason, r.Back)
}

// decideTrying ends the time of trial of a root: it is good, or the host goes back.
func (a *Agent) decideTrying(ctx context.Context, f facts.Facts, rec *Record) error {
	if a.fault != nil && rec.Switch.Verb == verbApply && rec.wayBack() != "" {
		return a.goBack(ctx, f, rec, "no other image could be applied from it: "+a.fault.Error())
	}
	report, err := a.judge(ctx, f, rec)
	switch {
	case err != nil:
		return err
	case report.Healthy():
		return a.good(ctx, f, rec)
	case rec.wayBack() != "":
		return a.goBack(ctx, f, rec, report.Reason())
	}
	return a.strand(ctx, rec, report)
}

// settle marks a root that is being tried good, if it has come up and passes the health gate. Going back is left to
// confirm.
func (a *Agent) settle(ctx context.Context, f facts.Facts, rec *Record) error {
	report, err := a.judge(ctx, f, rec)
	if err != nil {
		return err
	}
	if !report.Healthy() {
		return fmt.Errorf("%w: %s: %s", ErrUnhealthy, f.Root, report.Reason())
	}
	return a.good(ctx, f, rec)
}

// timeLeft is how long the root that runs still has to become good: [health] deadline, counted from when it was armed.
func (a *Agent) timeLeft() time.Duration {
	left := time.Duration(a.Config.Health.Deadline)
	if stamp := readStamp(a.path(stampFile)); stamp != nil && stamp.At > 0 {
		left -= sinceBoot() - stamp.At
	}
	// What a root that came up late gets all the same, before the guard acts: it is judged, and not condemned unseen.
	const look = 2 * time.Second
	return max(left, min(look+time.Duration(a.Config.Health.Settle), guardMargin-look))
}

// good marks the root that runs good.
func (a *Agent) good(ctx context.Context, f facts.Facts, rec *Record) error {
	if err := a.guardLeaves(ctx); err != nil {
		return err
	}
	before, err := rec.clone()
	if err != nil {
		return err
	}
	// Before it is recorded: of a good root it would come back.
	if err := retireEtc(filepath.Join(a.path(StateDir), "roots", f.Root, "etc")); err != nil {
		return err
	}
	if err := rec.proved(f.Root); err != nil {
		return err
	}
	if a.fault == nil {
		rec.State = &a.Config.State
	}
	if err := a.writeSwitch(rec); err != nil {
		rec.Phase = PhaseTrying // as it is on the disk: the guard has to know
		return err
	}
	if err := a.guardLeaves(ctx); err != nil { // it began meanwhile; the root that it goes to takes over what it did
		*rec = *before
		return errors.Join(err, a.writeRecord(rec))
	}
	a.restoreEtcs(f)
	a.tell(rec.Switch.event("good", "").on(f))
	a.Log.Info("the root is good", zap.String("root", f.Root))
	if rec.Switch.Verb == verbApply { // a root that was rolled back from is kept until the next one is good
		a.collect(f, rec)
	}
	a.loadWaiting(ctx, f, rec) // what stalled before the switch; how it ends is in the log and the history
	return nil
}

// proved records that a root is good.
func (r *Record) proved(root string) error {
	if err := r.on(CauseProved); err != nil {
		return err
	}
	if r.Staged == root {
		r.Staged = ""
	}
	delete(r.Bad, root)
	delete(r.Attempts, root)
	// What the host goes back from by itself is no good any more, or is one that a boot of the kernel could not resume: that
	// stays the last good root, for the next boot.
	if r.Switch.Verb != verbBack || r.Switch.Named {
		r.confirm(root)
		r.Resume = nil
	}
	return nil
}

var errForeign = errors.New("somebody else armed")

// disarmLeftover takes away a root that this agent armed and systemd did not move into. Left armed, it would turn an
// administrator's reboot into a soft one. What somebody else armed is theirs.
func (a *Agent) disarmLeftover(ctx context.Context, f facts.Facts, rec *Record) error {
	if err := a.guardLeaves(ctx); err != nil { // what it mounts is none
		return err
	}
	underWay, err := a.Machine.PID1.ShuttingDown(ctx)
	if err != nil {
		return err
	}
	armed, err := assembly.Armed()
	if err != nil {
		return err
	}
	if underWay {
		if armed != "" {
			return fmt.Errorf("%w: a soft reboot into %s is under way", ErrBlocked, armed)
		}
		return nil
	}
	if err := assembly.Clear(); err != nil {
		return err
	}
	stamp := readStamp(a.path(stampFile))
	// The mutable host is armed under the name of its disk. Once the host is there, it is not armed any more.
	toHost := rec.Phase == PhaseArmed && rec.Switch.Target == switcher.HostRoot ||
		stamp != nil && stamp.Error == "" && stamp.Target == switcher.HostRoot
	ours := strings.HasPrefix(armed, "sha256-") || toHost && f.Root != switcher.HostRoot
	switch {
	case armed == "":
		return nil
	case !ours:
		return fmt.Errorf("%w: %w %s at %s; unmount it or let it happen first", ErrBlocked, errForeign, armed, switcher.NextRoot)
	}
	a.Log.Warn("a root was left armed; it is disarmed", zap.String("root", armed))
	return assembly.Disarm()
}

// reconcile brings the record into line with what is mounted at /. A switch that failed is recorded and returned as an
// error once; the next command finds it in the record only.
func (a *Agent) reconcile(ctx context.Context, f facts.Facts, rec *Record) error {
	if err := a.takeOver(f, rec); err != nil {
		return err
	}
	defer func() {
		if !rec.moving() {
			a.restoreEtcs(f)
		}
	}()
	if rec.late(f.Root) {
		a.Log.Warn("the switch was taken back, and came all the same", zap.String("root", f.Root))
		if err := rec.on(CauseLate); err != nil {
			return err
		}
	}
	switch rec.Phase {
	case PhaseArmed:
		return a.proveSwitch(ctx, f, rec)
	case PhaseTrying:
		if f.Root != rec.Switch.Target {
			return a.giveUp(rec, CauseLeft, level.Rebooted, fmt.Sprintf("the host left %s before it was good; %s is mounted at /", rec.Switch.Target, f.Root))
		}
	}
	return nil
}

func (a *Agent) proveSwitch(ctx context.Context, f facts.Facts, rec *Record) error {
	outcome, reason := level.Prove(rec.Switch.Expectation, f, readStamp(a.path(stampFile)))
	switch outcome {
	case level.Switched:
		if err := rec.on(CauseArrived); err != nil {
			return err
		}
		delete(rec.Failed, rec.Switch.Target)
		// Going back, and going on after a boot, are the end of a switch that is told already; but for one that did not get
		// there the time before.
		again := rec.Switch.Verb == verbResume && rec.Last != nil && rec.Last.Target == rec.Switch.Target
		if rec.Last == nil || again || rec.Switch.Verb != verbBack && rec.Switch.Verb != verbResume {
			rec.Last = &Result{Outcome: outcome, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
		}
		return errors.Join(a.writeSwitch(rec), a.Machine.PID1.ForgetGone(ctx))
	case level.Pending:
		return a.pending(ctx, rec)
	case level.Landed:
		return a.land(ctx, rec, reason)
	case level.Rebooted:
		if f.BootID != rec.Switch.BootID {
			break
		}
		if err := a.underWay(ctx, rec); err != nil { // it is being armed just now
			return err
		}
	}
	return a.giveUp(rec, CauseMissed, outcome, reason)
}

// underWay is an error while systemd is on its way into the switch.
func (a *Agent) underWay(ctx context.Context, rec *Record) error {
	underWay, err := a.Machine.PID1.ShuttingDown(ctx)
	if err == nil && underWay {
		err = fmt.Errorf("%w: the switch to %s is under way", ErrBlocked, rec.Switch.Target)
	}
	return err
}

// pending is a switch that has not happened. Either systemd is on its way, or the agent was killed between writing the
// record and asking.
func (a *Agent) pending(ctx context.Context, rec *Record) error {
	if err := a.underWay(ctx, rec); err != nil {
		return err
	}
	if err := a.Machine.PID1.ReleaseArmUnit(ctx); err != nil {
		return err
	}
	a.Log.Warn("a switch was prepared and never asked for; it is taken back", zap.String("root", rec.Switch.Target))
	if err := rec.on(CauseWithdrawn); err != nil {
		return err
	}
	rec.spare(rec.Switch.Target)
	return a.writeOutcome(rec)
}

// land records that the kernel was booted for a switch and nothing has gone on from the host yet. Whoever goes on does it
// by a soft reboot, which is a switch of its own.
func (a *Agent) land(ctx context.Context, rec *Record, reason string) error {
	if err := a.underWay(ctx, rec); err != nil {
		return err
	}
	a.Log.Warn(reason + "; `updatectl apply` does")
	if err := rec.on(CauseLanded); err != nil {
		return err
	}
	rec.spare(rec.Switch.Target) // going on is the attempt
	rec.Last = &Result{Outcome: level.Landed, Reason: reason, Target: rec.Switch.Target, At: a.Now().UTC()}
	if err := a.writeOutcome(rec); err != nil {
		return err
	}
	a.tell(rec.Switch.event("landed", reason))
	return nil
}

// giveUp records a switch that failed.
func (a *Agent) giveUp(rec *Record, c Cause, outcome level.Outcome, reason string) error {
	now := a.Now().UTC()
	if err := rec.giveUp(c, outcome, reason, now); err != nil {
		return err
	}
	if err := a.writeOutcome(rec); err != nil {
		return err
	}
	a.tell(rec.Switch.event("failed", reason))
	if bad, isBad := rec.Bad[rec.Switch.Target]; isBad && bad.At.Equal(now) && bad.Reason != reason {
		a.tell(rec.Switch.event("bad", bad.Reason))
	}
	if rec.Switch.Verb == verbBack && outcome == level.Rebooted {
		return nil // the bad root is left, by another way
	}
	return fmt.Errorf("%w: %s", ErrSwitch, reason)
}

// giveUp ends a switch that failed. A root that systemd did not accept is bad: it would not have it the next time
// either. So is one that never became good in as many attempts as there are. That a boot of the kernel came in the way of
// going back changes nothing about why.
func (r *Record) giveUp(c Cause, outcome level.Outcome, reason string, now time.Time) error {
	if err := r.on(c); err != nil {
		return err
	}
	target := r.Switch.Target
	if r.Switch.Verb != verbBack || outcome != level.Rebooted {
		r.Last = &Result{Outcome: outcome, Reason: reason, Target: target, At: now}
	}
	switch {
	case outcome == level.FellBack:
		r.condemn(target, reason, now)
	case outcome == level.NotArmed, outcome == level.Rebooted && c == CauseMissed && !r.Switch.Armed:
		r.fail(target, reason)
	case r.Attempts[target] >= maxAttempts:
		r.condemn(target, fmt.Sprintf("it was tried %d times and did not become good; the last time, %s", r.Attempts[target], reason), now)
	}
	return nil
}

// fail counts a switch that is not the root's fault: it never ran.
func (r *Record) fail(root, reason string) {
	r.spare(root)
	r.Failed[root] = Failed{r.Failed[root].Times + 1, reason}
}

// spare takes an attempt back that is not the root's.
func (r *Record) spare(root string) {
	if r.Attempts[root]--; r.Attempts[root] <= 0 {
		delete(r.Attempts, root)
	}
}
