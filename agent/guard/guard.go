// Package guard answers who watches the move of a host. It outlives the switch in memory, outside of both roots, and goes
// back when the new root does not become good, also when that root is dead.
package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Guard watches the switches of a host.
type Guard struct {
	*host.Host
	Roots      roots.Roots
	Transition transition.Arrival
}

// The guard's times, besides those of the configuration.
const (
	guardLook = time.Second
	// Margin is how long after the deadline confirm may take to go back in the ordinary way.
	Margin = 15 * time.Second
	// verdictGrace is the same once confirm has said that it wants to.
	verdictGrace = 10 * time.Second
	// deafLimit is how long PID 1 may not answer. It starts, with all generators, in seconds.
	deafLimit = 2 * time.Minute
	// diskPatience is how long reading or writing the record may take: the new root may have lost its disk.
	diskPatience = 10 * time.Second
	// armTime is how long the arming unit may take, as its TimeoutStopSec= says, and a moment.
	armTime = 95 * time.Second
	// killGrace is how long what was killed may take to be gone.
	killGrace = 10 * time.Second
)

// stage is where a guarded switch is.
type stage string

const (
	leaving   stage = "leaving"   // the root that is left still runs
	trying    stage = "trying"    // the new root runs, and is not good yet
	returning stage = "returning" // the new root is being left for the way back
	returned  stage = "returned"  // the root gone back to runs
)

// act is what the guard does next.
type act string

const (
	actWait   act = "wait"
	actEnd    act = "end"
	actRecall act = "withdraw"  // the shutdown has never begun
	actUnjam  act = "unjam"     // the shutdown is stuck: cancel or escalate
	actBack   act = "go back"   // the new root did not become good
	actReboot act = "full boot" // nothing else leads back
)

// watch watches over one switch. It keeps in memory what it needs, because either root may be out of its reach.
type watch struct {
	*Guard
	change record.Switch
	// back is the root to go back to, nil when there is none.
	back *assembly.Next
	// backVersion is its version, "" for that of the mutable host.
	backVersion string
	// shutdown and health are how long the stages may take.
	shutdown, health time.Duration
	// active lists what ran before, to be started again when the shutdown is cancelled.
	active []string

	stage stage
	since time.Duration // the uptime at which the stage began
	mount int           // what was mounted at / then
	begun bool          // PID 1 was seen on its way into a soft reboot: logind waits for those who ask for a moment
	deaf  time.Duration // the uptime since which PID 1 has not answered, 0 when it does
	told  time.Duration // the uptime since which confirm has wanted to go back, 0 when it does not
	kills int           // how far a stuck shutdown was escalated
	why   string        // why the host goes back
	// cancelling: the record says already that the host stays, and PID 1 does not yet.
	cancelling bool
}

// observation is what a guard sees in one look.
type observation struct {
	facts.Mounted
	now time.Duration
	// record is nil when it cannot be read.
	record *record.Record
	// manager is nil when PID 1 does not answer.
	manager *pid1.Manager
	// verdict is why confirm wants to leave the root; its reason is "" when it does not.
	verdict record.Departure
}

// Run watches over the switch that the record announces, from outside of both roots, and goes back when the new root does
// not become good. It returns when there is nothing more to watch, or with ctx.
func (gd *Guard) Run(ctx context.Context) error {
	w, err := gd.newWatch(ctx)
	if err != nil { // whoever asks for the switch is refused: there would be no way back
		return err
	}
	if err := gd.Machine.Systemd.NotifyReady(); err != nil {
		return fmt.Errorf("cannot report that the guard is up: %w", err)
	}
	if w == nil {
		return nil
	}
	defer gd.Machine.Kernel.RebootOnPanic()()
	tick := time.NewTicker(guardLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done(): // another kind of shutdown, or a new guard
			return nil
		case <-tick.C:
		}
		if w.step(ctx) == actEnd {
			return nil
		}
	}
}

// newWatch prepares everything for the way back. It returns nil when no switch is announced.
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
		Guard: gd, change: *rec.Switch, stage: leaving, since: gd.Machine.Kernel.SinceBoot(), mount: now.Mount,
		shutdown: time.Duration(gd.Config.Switch.ShutdownDeadline), health: time.Duration(gd.Config.Health.Deadline),
	}
	if w.active, err = gd.Machine.Systemd.ActiveUnits(ctx); err != nil {
		return nil, err
	}
	if to := rec.WayBack(); to != "" {
		w.back, err = gd.prepareBack(to, f, rec)
		switch {
		case err == nil:
			w.backVersion = gd.Roots.VersionOf(to, rec)
		case rec.Switch.Verb == record.VerbRollback: // whatever is wrong with the root that is left keeps nobody in it
			gd.Log.Warn("cannot prepare the way back from the target of the rollback; a full reboot would follow instead",
				zap.String("root", to), zap.Error(err))
			w.back = nil
		default:
			return nil, fmt.Errorf("cannot prepare the way back to %s: %w", to, err)
		}
	}
	return w, nil
}

// prepareBack collects all that has to be known to arm a root later.
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
	next.Seeded = to == f.Root
	if to == switcher.HostRoot {
		return &next, nil
	}
	if _, err := gd.Machine.Trees.Root(to); err != nil {
		return nil, err
	}
	next.Fstab = gd.Machine.Trees.FstabPoints(next.Etc)
	var err error
	next.Owners, err = gd.Machine.Trees.EtcOwners(next, next.Etc)
	return &next, err
}

// step looks once and does what there is to do.
func (g *watch) step(ctx context.Context) act {
	s := g.look(ctx)
	next := g.next(s)
	var err error
	switch next {
	case actRecall:
		ctx, cancel := context.WithTimeout(ctx, transition.AskTime)
		err = waitAtMost(transition.AskTime, func() error { return g.withdraw(ctx) })
		cancel()
	case actUnjam:
		err = g.unjam(ctx, s)
	case actBack:
		err = g.goBack(ctx, s)
	case actReboot:
		err = g.bootKernel(s)
	}
	if err != nil {
		g.Log.Error("guard", zap.String("act", string(next)), zap.Error(err))
	}
	return next
}

func (g *watch) look(ctx context.Context) observation {
	s := observation{now: g.Machine.Kernel.SinceBoot()}
	read := make(chan *record.Record, 1)
	if m, err := g.Machine.Mounts.Mounted(); err == nil {
		s.Mounted = m
	} else {
		s.Mount = g.mount
	}
	_ = waitAtMost(diskPatience, func() error { // without a record, the time decides
		rec, err := g.Records.Read()
		if err == nil {
			read <- rec
		}
		return err
	})
	select {
	case s.record = <-read:
	default:
	}
	if m, err := g.Machine.Systemd.AskManager(ctx); err == nil {
		s.manager = &m
	}
	s.verdict = g.Transition.ReadVerdict(s.Root)
	return s
}

// copyOfRecord returns a record that a call may change which cannot be ended; nil when the record cannot be read.
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

// waitAtMost returns what a call returns, or an errTookTooLong after the limit. The call then goes on: one into a disk that
// hangs cannot be ended. So it must not share what it changes.
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

// next decides. It changes nothing but where the guard believes the switch to be.
func (g *watch) next(s observation) act {
	if s.manager != nil {
		g.deaf = 0
	} else if g.deaf == 0 {
		g.deaf = s.now
	}
	if g.deaf > 0 && s.now-g.deaf > deafLimit {
		g.why = fmt.Sprintf("systemd has not answered for %v", deafLimit)
		return actReboot
	}
	if g.cancelling && s.Mount == g.mount {
		if s.manager == nil {
			return actWait
		}
		return actUnjam
	}
	switch g.stage {
	case leaving:
		return g.nextLeaving(s)
	case trying:
		return g.nextTrying(s)
	case returning:
		return g.nextReturning(s)
	}
	return g.nextReturned(s)
}

// enter begins a stage.
func (g *watch) enter(to stage, s observation) act {
	g.stage, g.since, g.mount, g.kills, g.cancelling = to, s.now, s.Mount, 0, false
	return actWait
}

// ours tells whether the record still is about the switch that is watched, or cannot be read.
func (g *watch) ours(s observation) bool {
	return s.record == nil || s.record.Switch != nil && s.record.Switch.At.Equal(g.change.At)
}

// settled tells whether the record says that the host is on its way nowhere.
func (s observation) settled() bool {
	return s.record != nil && !s.record.Moving()
}

func (g *watch) nextLeaving(s observation) act {
	if !g.begun && s.manager != nil && s.manager.SoftReboot {
		g.begun, g.since = true, s.now
	}
	spent := s.now - g.since
	switch {
	case s.Mount != g.mount && s.Root == g.change.Target:
		return g.enter(trying, s)
	case s.Mount != g.mount, s.settled(), !g.ours(s):
		return actEnd // the switch was taken back, or became another one
	case s.manager != nil && !s.manager.SoftReboot && spent > g.shutdown+g.health+Margin:
		if s.record == nil { // then nothing will be armed either
			return actEnd
		}
		return actRecall
	case spent > g.shutdown && s.manager != nil && s.manager.SoftReboot:
		if slices.Contains(s.manager.Stopping, pid1.ArmUnit) && spent <= g.shutdown+armTime {
			return actWait // all services have stopped, and it ends in its own time
		}
		return actUnjam
	}
	return actWait
}

func (g *watch) nextTrying(s observation) act {
	spent := s.now - g.since
	switch {
	case !g.ours(s) && !s.settled() && s.record.Switch.Verb == record.VerbBack: // confirm goes back by itself
		if s.Mount != g.mount {
			return g.enter(returned, s)
		}
		return g.enter(returning, s)
	case s.Mount != g.mount, s.settled() && !s.record.ArrivedLate(s.Root): // late: its cancelling came too late
		return actEnd
	case !g.ours(s):
		return actEnd // another switch, with a guard of its own
	case s.verdict.Reason != "" && g.waited(s):
		g.why = s.verdict.Reason
		return actBack
	case spent > g.health+Margin:
		g.why = fmt.Sprintf("it was not good within %v%s", g.health, g.stillStarting(s))
		return actBack
	}
	return actWait
}

// waited tells whether confirm has had the time to go back by itself.
func (g *watch) waited(s observation) bool {
	if g.told == 0 {
		g.told = s.now
	}
	return s.now-g.told > verdictGrace
}

func (g *watch) stillStarting(s observation) string {
	if s.manager == nil {
		return " and systemd does not answer"
	}
	if len(s.manager.Starting) == 0 {
		return ""
	}
	return "; these units are still starting: " + strings.Join(s.manager.Starting, ", ")
}

func (g *watch) nextReturning(s observation) act {
	switch {
	case s.Mount != g.mount:
		return g.enter(returned, s)
	case s.now-g.since <= g.shutdown:
		return actWait
	case g.kills == 0 && s.manager != nil && len(s.manager.Stopping) > 0:
		return actUnjam // a service that cannot save its data on a full disk never stops
	}
	return actReboot
}

func (g *watch) nextReturned(s observation) act {
	switch {
	case s.settled(), s.manager != nil && s.manager.Up():
		return actEnd
	case s.now-g.since > g.health+Margin:
		return actReboot
	}
	return actWait
}
