// Package guard answers who watches a switch. It promises that a root which does not become good is rolled back, even
// when that root hangs: the guard runs from memory, outside of both roots, and outlives the soft reboot.
package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/hold"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Guard watches over the switches of a host.
type Guard struct {
	*host.Host
	Roots      roots.Roots
	Transition transition.Arrival
}

// The times of the guard, besides those in the configuration.
const (
	// lookInterval is how often the guard looks at the host.
	lookInterval = time.Second
	// Margin is how long after [health] deadline confirm may take to roll back before the guard does.
	Margin = 15 * time.Second
	// verdictGrace is how long confirm may take to roll back once it has written a verdict.
	verdictGrace = 10 * time.Second
	// deafLimit is how long PID 1 may not answer. It starts in seconds, with all generators.
	deafLimit = 2 * time.Minute
	// cancelLimit is how long the guard tries to cancel a shutdown. Services are down meanwhile.
	cancelLimit = 2 * time.Minute
	// diskPatience is how long reading or writing the record may take: the new root may have lost its disk.
	diskPatience = 10 * time.Second
	// armTime is how long the arming unit may take: its TimeoutStopSec=, and 5 seconds.
	armTime = 185 * time.Second
	// killGrace is how long killed processes may take to end.
	killGrace = 10 * time.Second
)

// leg is the part of a watched switch that the host is in.
type leg string

const (
	legLeaving   leg = "leaving"   // the old root still runs
	legTrying    leg = "trying"    // the new root runs, and is not good yet
	legReturning leg = "returning" // the new root still runs, and is being rolled back
	legReturned  leg = "returned"  // the root that the host rolled back to runs
)

// act is what the guard does next.
type act string

const (
	actWait       act = "wait"
	actEnd        act = "end"         // there is nothing more to watch
	actWithdraw   act = "withdraw"    // the shutdown has never begun
	actUnjam      act = "unjam"       // the shutdown is stuck: cancel or escalate it
	actRollBack   act = "roll back"   // the new root did not become good
	actFullReboot act = "full reboot" // nothing else leads to a good root
)

// watch watches over one switch. It keeps in memory all it needs, because either root may become unreadable.
type watch struct {
	*Guard
	// change is the switch that is watched.
	change record.Switch
	// back is the root to roll back to, nil when there is none; backVersion is its version, "" for the host root.
	back        *assembly.Next
	backVersion string
	// shutdown and health are how long services may take to stop, and the new root to become good.
	shutdown, health time.Duration
	// activeUnits ran before the switch; they are started again when the shutdown is cancelled.
	activeUnits []string

	leg      leg
	legSince time.Duration // the uptime at which the leg began
	mount    int           // the mount at / when the leg began
	seen     facts.Mounted // what was at / at the last look that did not fail
	// softRebootSeen is whether PID 1 was seen shutting down. Before that, logind may wait for delay inhibitors.
	softRebootSeen bool
	deafSince      time.Duration // the uptime since which PID 1 has not answered, 0 when it answers
	verdictSince   time.Duration // the uptime at which the verdict of confirm was first seen, 0 without one
	escalated      int           // how many steps against a stuck shutdown were taken
	reason         string        // why the host is rolled back
	// cancellingSince is the uptime since which the record says that the host stays, while PID 1 has not cancelled the
	// shutdown yet; 0 otherwise.
	cancellingSince time.Duration
	unitsReleased   bool // what keeps units over the switch was taken back
	// rebootSince is the uptime since which systemd has been asked for a full reboot from a new kernel, 0 otherwise.
	rebootSince time.Duration
	// held is what holds ports, nil if none is held.
	held *hold.Holder
}

// observation is what the guard sees when it looks once.
type observation struct {
	facts.Mounted
	// now is the uptime.
	now time.Duration
	// record is nil when it cannot be read, or names no switch, as on a host that had none before this one.
	record   *record.Record
	noSwitch bool
	// manager is the state of PID 1, nil when it does not answer.
	manager *pid1.Manager
	// verdict is why confirm wants to leave the root; its reason is "" when confirm does not.
	verdict record.Departure
}

// Run watches over the switch that the record announces, and rolls back when the new root does not become good. It
// returns when there is nothing more to watch, or when ctx ends. The error means that the guard cannot watch; then the
// switch must not start.
func (gd *Guard) Run(ctx context.Context) error {
	w, err := gd.newWatch(ctx)
	if err != nil { // systemd refuses the switch then: nobody could roll it back
		return err
	}
	if w != nil { // before the switch can begin
		defer gd.Machine.Kernel.RebootOnPanic()()
		w.held = holdPorts(ctx, w)
		defer release(w, w.held)
	}
	if err := gd.Machine.Systemd.NotifyReady(); err != nil {
		return fmt.Errorf("cannot report that the guard is up: %w", err)
	}
	if w == nil {
		return nil
	}
	measured := measure(w, w.held)
	defer func() {
		release(w, w.held)
		measured(ctx.Err() == nil)
	}()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		// Another kind of shutdown, or another guard replaces this one. After a long step both channels are ready, and
		// select picks one at random.
		if ctx.Err() != nil {
			return seeReboot(w)
		}
		if w.step(ctx) == actEnd {
			return nil
		}
	}
}

// newWatch prepares the rollback of the announced switch. It returns nil when no switch is announced.
func (gd *Guard) newWatch(ctx context.Context) (*watch, error) {
	f, rec, err := gd.Look(ctx)
	if err != nil || rec.Phase != record.PhaseArmed {
		return nil, err
	}
	now, err := gd.Machine.Mounts.Mounted()
	if err != nil {
		return nil, err
	}
	w := &watch{
		Guard: gd, change: *rec.Switch, leg: legLeaving, legSince: gd.Machine.Kernel.SinceBoot(), mount: now.Mount, seen: now,
		shutdown: time.Duration(gd.Config.Switch.ShutdownDeadline), health: time.Duration(gd.Config.Health.Deadline),
	}
	if w.activeUnits, err = gd.Machine.Systemd.ActiveUnits(ctx); err != nil {
		return nil, err
	}
	if to := rec.RollbackTarget(); to != "" {
		w.back, err = gd.prepareBack(to, f, rec)
		switch {
		case err == nil:
			w.backVersion = gd.Roots.VersionOf(to, rec)
		case rec.Switch.Verb == record.VerbRollback: // an operator may leave a root that cannot be prepared any more
			gd.Log.Warn("cannot prepare a soft reboot back to the root that is left; it would be a full reboot",
				zap.String("root", to), zap.Error(err))
			w.back = nil
		default:
			return nil, fmt.Errorf("cannot prepare the rollback to %s: %w", to, err)
		}
	}
	return w, nil
}

// prepareBack returns all that is needed to arm a root later, without reading either root again.
func (gd *Guard) prepareBack(to string, f facts.Facts, rec *record.Record) (*assembly.Next, error) {
	if err := gd.Roots.Open(); err != nil {
		return nil, err
	}
	if to != f.Root {
		if _, err := gd.Roots.MakeReady(to, f, rec); err != nil {
			return nil, err
		}
	}
	next := gd.Roots.Next(to, f)
	next = gd.Machine.Trees.WithFstab(next, gd.Roots.EtcAt(next, f))
	next.Seeded, next.Return = to == f.Root, true
	next.Present = gd.Machine.Mounts.Carried(next)
	next.Kept = gd.Machine.Mounts.Kept(next)
	if to == switcher.HostRoot {
		return &next, nil
	}
	if _, err := gd.Machine.Trees.Root(to); err != nil {
		return nil, err
	}
	var err error
	next.Owners, err = roots.OwnersOf(&gd.Roots, next)
	return &next, err
}

// step looks at the host once, and does what follows from it.
func (g *watch) step(ctx context.Context) act {
	if err := g.Machine.Groups.ThawLate(); err != nil { // the arming step may have been killed
		g.Log.Error("cannot thaw what was frozen while a root was armed", zap.Error(err))
	}
	s := g.observe(ctx)
	if s.manager != nil {
		g.held.Expect(s.manager.SoftReboot)
	}
	next := g.nextAct(s)
	var err error
	switch next {
	case actWithdraw:
		ctx, cancel := context.WithTimeout(ctx, transition.RequestTimeout)
		err = waitAtMost(transition.RequestTimeout, func() error { return g.withdraw(ctx) })
		cancel()
	case actUnjam:
		err = g.unjam(ctx, s)
	case actRollBack:
		err = g.rollBack(ctx, s)
	case actFullReboot:
		err = g.fullReboot(s)
	}
	if errors.Is(err, errSwitched) {
		g.Log.Warn("the guard looks again", zap.Error(err))
	} else if err != nil {
		g.Log.Error("the guard cannot do what comes next", zap.String("act", string(next)), zap.Error(err))
	}
	return next
}

// observe looks at the host once. It waits at most a bounded time for the disk and for PID 1.
func (g *watch) observe(ctx context.Context) observation {
	s := observation{now: g.Machine.Kernel.SinceBoot()}
	// PID 1 first: its answer may take long, and what is read before it would be old by then.
	if m, err := g.Machine.Systemd.AskManager(ctx); err == nil {
		s.manager = &m
	}
	read := make(chan *record.Record, 1)
	if m, err := g.Machine.Mounts.Mounted(); err == nil {
		g.seen = m
	}
	s.Mounted = g.seen
	_ = waitAtMost(diskPatience, func() error { // without a record, only time decides
		rec, err := g.readRecord()
		if err == nil || errors.Is(err, errNoSwitch) {
			read <- rec
		}
		return err
	})
	select {
	case s.record = <-read:
		s.noSwitch = s.record == nil
	default:
	}
	s.verdict = g.Transition.ReadVerdict(s.Root)
	return s
}

// errNoSwitch means that the record is gone: it named a switch when the guard began to watch.
var errNoSwitch = errors.New("the record names no switch")

// readRecord reads the record. A host without a record reads as a new one, which has nothing to watch: the guard must
// not take that for an answer, since the new root may only have lost its state.
func (g *watch) readRecord() (*record.Record, error) {
	rec, err := g.Records.Read()
	switch {
	case err != nil:
		return nil, err
	case rec.Switch == nil:
		return nil, errNoSwitch
	}
	return rec, nil
}

// copyOfRecord returns a copy of the record for a call that cannot be interrupted, nil when the record cannot be read.
func (s observation) copyOfRecord() *record.Record {
	if s.record == nil {
		return nil
	}
	c, err := s.record.Clone()
	if err != nil {
		return nil
	}
	return c
}

var errTookTooLong = errors.New("the call did not end in time")

// waitAtMost returns the error of a call, or an errTookTooLong after the limit. The call goes on then, because a call
// into a disk that hangs cannot be interrupted: it must not share what it changes.
func waitAtMost(limit time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("%w: %v", errTookTooLong, limit)
	}
}

// nextAct decides what the guard does next. It changes only what the guard knows about the switch, such as its leg.
func (g *watch) nextAct(s observation) act {
	if s.manager != nil {
		g.deafSince = 0
	} else if g.deafSince == 0 {
		g.deafSince = s.now
	}
	if g.deafSince > 0 && s.now-g.deafSince > deafLimit {
		g.reason = fmt.Sprintf("systemd has not answered for %v", deafLimit)
		return actFullReboot
	}
	if g.cancellingSince > 0 && s.Mount == g.mount {
		switch {
		case s.now-g.cancellingSince > cancelLimit:
			g.reason = fmt.Sprintf("systemd has not cancelled the shutdown within %v", cancelLimit)
			return actFullReboot
		case s.manager == nil:
			return actWait
		}
		return actUnjam
	}
	switch g.leg {
	case legLeaving:
		return g.nextLeaving(s)
	case legTrying:
		return g.nextTrying(s)
	case legReturning:
		return g.nextReturning(s)
	}
	return g.nextReturned(s)
}

// enterLeg begins a leg.
func (g *watch) enterLeg(to leg, s observation) act {
	g.leg, g.legSince, g.mount, g.escalated, g.cancellingSince = to, s.now, s.Mount, 0, 0
	return actWait
}

// recordIsOurs reports whether the record is still about the watched switch, or cannot be read.
func (g *watch) recordIsOurs(s observation) bool {
	return s.record == nil || s.record.Switch != nil && s.record.Switch.At.Equal(g.change.At)
}

// isLeft reports whether the record says that the target of the watched switch is left automatically. Another switch
// may lead back into that root from a third one, if the watched switch was refused and its guard has not looked since.
func isLeft(g *watch, s observation) bool {
	return !g.recordIsOurs(s) && !s.atRest() && s.record.Switch.Verb == record.VerbBack &&
		s.record.Switch.From == g.change.Target
}

// atRest reports whether the record can be read, and no switch is under way by it.
func (s observation) atRest() bool {
	return s.record != nil && !s.record.Moving()
}

// nextLeaving decides while the old root runs.
func (g *watch) nextLeaving(s observation) act {
	if !g.softRebootSeen && s.manager != nil && s.manager.SoftReboot {
		g.softRebootSeen, g.legSince = true, s.now
	}
	spent := s.now - g.legSince
	switch {
	case s.Mount != g.mount && s.Root == g.change.Target:
		return g.enterLeg(legTrying, s)
	case s.Mount != g.mount, !g.recordIsOurs(s):
		return actEnd // another switch was announced
	case (s.atRest() || s.noSwitch) && s.manager != nil && !s.manager.SoftReboot:
		return actEnd // the switch was withdrawn; a queued soft reboot may still lead into the target
	case s.manager != nil && !s.manager.SoftReboot && spent > g.shutdown+g.health+Margin:
		if s.record == nil { // without a record, nothing will be armed
			return actEnd
		}
		return actWithdraw
	case spent > g.shutdown && s.manager != nil && s.manager.SoftReboot:
		if slices.Contains(s.manager.Stopping, pid1.ArmUnit) && spent <= g.shutdown+armTime {
			return actWait // all services have stopped, and the arming unit has a timeout of its own
		}
		return actUnjam
	}
	return actWait
}

// nextTrying decides while the new root runs and is not good yet.
func (g *watch) nextTrying(s observation) act {
	spent := s.now - g.legSince
	switch {
	case isLeft(g, s): // confirm rolls back
		if s.Mount != g.mount {
			return g.enterLeg(legReturned, s)
		}
		return g.enterLeg(legReturning, s)
	case s.Mount != g.mount, s.atRest() && !s.record.ArrivedLate(s.Root): // late: it was cancelled too late, and is tried
		return actEnd
	case !g.recordIsOurs(s):
		return actEnd // another switch, which has a guard of its own
	case s.verdict.Reason != "" && g.confirmHadItsTime(s):
		g.reason = s.verdict.Reason
		return actRollBack
	case spent > g.health+Margin:
		g.reason = fmt.Sprintf("it was not good within %v%s", g.health, g.stillStarting(s))
		return actRollBack
	}
	return actWait
}

// confirmHadItsTime reports whether confirm, which has written a verdict, has had the time to roll back.
func (g *watch) confirmHadItsTime(s observation) bool {
	if g.verdictSince == 0 {
		g.verdictSince = s.now
	}
	return s.now-g.verdictSince > verdictGrace
}

// stillStarting returns which units the new root is still starting, for the reason of a rollback.
func (g *watch) stillStarting(s observation) string {
	if s.manager == nil {
		return " and systemd does not answer"
	}
	if len(s.manager.Starting) == 0 {
		return ""
	}
	return "; these units are still starting: " + strings.Join(s.manager.Starting, ", ")
}

// nextReturning decides while the bad root shuts down.
func (g *watch) nextReturning(s observation) act {
	spent := s.now - g.legSince
	stopping := s.manager != nil && len(s.manager.Stopping) > 0
	switch {
	case s.Mount != g.mount:
		return g.enterLeg(legReturned, s)
	case spent <= g.shutdown:
		return actWait
	case stopping && slices.Contains(s.manager.Stopping, pid1.ArmUnit) && spent <= g.shutdown+armTime:
		return actWait // all services have stopped, and the arming unit has a timeout of its own
	case !stopping && spent <= g.shutdown+killGrace:
		return actWait // right before the switch, nothing stops any more, and then PID 1 does not answer
	case g.escalated == 0 && stopping:
		return actUnjam // such as a service that cannot save its data on a full disk
	}
	return actFullReboot
}

// nextReturned decides while the root that the host rolled back to starts.
func (g *watch) nextReturned(s observation) act {
	switch {
	case s.atRest(), s.manager != nil && s.manager.Up() && !g.cameBackBad(s):
		return actEnd
	case s.now-g.legSince > g.health+Margin:
		return actFullReboot
	}
	return actWait
}

// cameBackBad reports whether the root that was to be left runs again: systemd did not accept the other one. A command
// in it asks for a full reboot, or the guard does.
func (g *watch) cameBackBad(s observation) bool {
	return g.back != nil && g.back.ID != g.change.Target && s.Root == g.change.Target
}
