package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc"
)

// The guard's times, besides those of the configuration.
const (
	guardLook = time.Second
	// guardMargin is how long after the deadline confirm may take to go back in the ordinary way.
	guardMargin = 15 * time.Second
	// verdictGrace is the same once confirm has said that it wants to.
	verdictGrace = 10 * time.Second
	// deafLimit is how long PID 1 may not answer. It starts, with all generators, in seconds.
	deafLimit = 2 * time.Minute
	// diskPatience is how long reading or writing the record may take: the new root may have lost its disk.
	diskPatience = 10 * time.Second
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
	actUnjam  act = "unjam"     // the shutdown is stuck: cancel or escalate
	actBack   act = "go back"   // the new root did not become good
	actReboot act = "full boot" // nothing else leads back
)

// guard watches over one switch. It keeps in memory what it needs, because either root may be out of its reach.
type guard struct {
	agent  *Agent
	change Switch
	// back is the root to go back to, nil when there is none.
	back *switcher.Next
	// shutdown and health are how long the stages may take.
	shutdown, health time.Duration
	// active lists what ran before, to be started again when the shutdown is cancelled.
	active []string

	stage stage
	since time.Duration // the uptime at which the stage began
	mount int           // what was mounted at / then
	deaf  time.Duration // the uptime since which PID 1 has not answered, 0 when it does
	told  time.Duration // the uptime since which confirm has wanted to go back, 0 when it does not
	kills int           // how far a stuck shutdown was escalated
	why   string        // why the host goes back
}

// sight is what a guard sees in one look.
type sight struct {
	switcher.Mounted
	now time.Duration
	// record is nil when it cannot be read.
	record *Record
	// manager is nil when PID 1 does not answer.
	manager *switcher.Manager
	// verdict is why confirm wants to leave the root, "" when it does not.
	verdict string
}

// Guard watches over the switch that the record announces, from outside of both roots, and goes back when the new root
// does not become good. It returns when there is nothing more to watch, or with ctx.
func (a *Agent) Guard(ctx context.Context) error {
	g, err := a.newGuard(ctx)
	if err != nil { // whoever asks for the switch is refused: there would be no way back
		return err
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("cannot tell systemd that the guard is up: %w", err)
	}
	if g == nil {
		return nil
	}
	defer switcher.RebootOnPanic()()
	tick := time.NewTicker(guardLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done(): // another kind of shutdown, or a new guard
			return nil
		case <-tick.C:
		}
		if g.step(ctx) == actEnd {
			return nil
		}
	}
}

// newGuard prepares everything for the way back. It returns nil when no switch is announced.
func (a *Agent) newGuard(ctx context.Context) (*guard, error) {
	facts, rec, err := a.look(ctx)
	if err != nil || rec.Phase != PhaseArmed {
		return nil, err
	}
	now, err := switcher.LookAtRoot()
	if err != nil {
		return nil, err
	}
	g := &guard{
		agent: a, change: *rec.Switch, stage: leaving, since: sinceBoot(), mount: now.Mount,
		shutdown: time.Duration(a.Config.Switch.ShutdownDeadline), health: time.Duration(a.Config.Health.Deadline),
	}
	if g.active, err = a.Machine.ActiveUnits(ctx); err != nil {
		return nil, err
	}
	if to := rec.wayBack(); to != "" {
		if g.back, err = a.prepareBack(to, facts, rec); err != nil {
			return nil, fmt.Errorf("cannot prepare the way back to %s: %w", to, err)
		}
	}
	return g, nil
}

// prepareBack makes all that has to be known to arm a root later.
func (a *Agent) prepareBack(to string, f switcher.Facts, rec *Record) (*switcher.Next, error) {
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	if to != f.Root {
		if _, err := a.ready(st, to, f, rec); err != nil {
			return nil, err
		}
	}
	next := a.next(st, to, f)
	next.Seeded = to == f.Root
	if to == switcher.HostRoot {
		return &next, nil
	}
	root, err := st.Root(to)
	if err != nil {
		return nil, err
	}
	next.Fstab = fstabPoints(next.Etc)
	return &next, a.withEtc(st, root, f, rec, func(in etc.Inputs) error {
		next.Owners.UID, next.Owners.GID, err = etc.Numbers(in.Next, next.Etc)
		return err
	})
}

// step looks once and does what there is to do.
func (g *guard) step(ctx context.Context) act {
	s := g.look(ctx)
	next := g.next(s)
	var err error
	switch next {
	case actUnjam:
		err = g.unjam(ctx, s)
	case actBack:
		err = g.goBack(ctx, s)
	case actReboot:
		err = g.bootKernel(s)
	}
	if err != nil {
		g.agent.Log.Error("guard", zap.String("act", string(next)), zap.Error(err))
	}
	return next
}

func (g *guard) look(ctx context.Context) sight {
	s := sight{now: sinceBoot()}
	read := make(chan *Record, 1)
	if m, err := switcher.LookAtRoot(); err == nil {
		s.Mounted = m
	} else {
		s.Mount = g.mount
	}
	_ = within(diskPatience, func() error { // without a record, the time decides
		rec, err := g.agent.readRecord()
		if err == nil {
			read <- rec
		}
		return err
	})
	select {
	case s.record = <-read:
	default:
	}
	if m, err := g.agent.Machine.AskManager(ctx); err == nil {
		s.manager = &m
	}
	s.verdict = readVerdict(g.agent.path(verdictFile), s.Root)
	return s
}

// within gives up on what does not end in time, and leaves it to itself: a call into a disk that hangs cannot be ended.
func within(limit time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("it did not end within %v", limit)
	}
}

// next decides. It changes nothing but where the guard believes the switch to be.
func (g *guard) next(s sight) act {
	if s.manager != nil {
		g.deaf = 0
	} else if g.deaf == 0 {
		g.deaf = s.now
	}
	if g.deaf > 0 && s.now-g.deaf > deafLimit {
		g.why = fmt.Sprintf("systemd has not answered for %v", deafLimit)
		return actReboot
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
func (g *guard) enter(to stage, s sight) act {
	g.stage, g.since, g.mount, g.kills = to, s.now, s.Mount, 0
	return actWait
}

// ours tells whether the record still is about the switch that is watched, or cannot be read.
func (g *guard) ours(s sight) bool {
	return s.record == nil || s.record.Switch != nil && s.record.Switch.At.Equal(g.change.At)
}

// settled tells whether the record says that the host is on its way nowhere.
func (s sight) settled() bool {
	return s.record != nil && slices.Contains(resting, s.record.Phase)
}

func (g *guard) nextLeaving(s sight) act {
	spent := s.now - g.since
	switch {
	case s.Mount != g.mount && s.Root == g.change.Target:
		return g.enter(trying, s)
	case s.Mount != g.mount, s.settled(), !g.ours(s):
		return actEnd // the switch was taken back, or became another one
	case spent > g.shutdown+g.health+guardMargin:
		return actEnd // it never began: the root that was to be left is a good one
	case spent > g.shutdown && s.manager != nil && s.manager.SoftReboot:
		return actUnjam
	}
	return actWait
}

func (g *guard) nextTrying(s sight) act {
	spent := s.now - g.since
	switch {
	case !g.ours(s) && !s.settled() && s.record.Switch.Verb == verbBack: // confirm goes back by itself
		if s.Mount != g.mount {
			return g.enter(returned, s)
		}
		return g.enter(returning, s)
	case s.Mount != g.mount, s.settled():
		return actEnd
	case !g.ours(s):
		return actEnd // another switch, with a guard of its own
	case s.verdict != "" && g.waited(s):
		g.why = s.verdict
		return actBack
	case spent > g.health+guardMargin:
		g.why = fmt.Sprintf("it was not good within %v%s", g.health, g.stillStarting(s))
		return actBack
	}
	return actWait
}

// waited tells whether confirm has had the time to go back by itself.
func (g *guard) waited(s sight) bool {
	if g.told == 0 {
		g.told = s.now
	}
	return s.now-g.told > verdictGrace
}

func (g *guard) stillStarting(s sight) string {
	if s.manager == nil {
		return " and systemd does not answer"
	}
	if len(s.manager.Starting) == 0 {
		return ""
	}
	return "; these units are still starting: " + strings.Join(s.manager.Starting, ", ")
}

func (g *guard) nextReturning(s sight) act {
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

func (g *guard) nextReturned(s sight) act {
	switch {
	case s.settled(), s.manager != nil && s.manager.Up():
		return actEnd
	case s.now-g.since > g.health+guardMargin:
		return actReboot
	}
	return actWait
}

// goBack arms the root that was left, prepared before it was, and asks PID 1 for a soft reboot. Where that does not go,
// the kernel is booted.
func (g *guard) goBack(ctx context.Context, s sight) error {
	if g.back == nil {
		return g.bootKernel(s)
	}
	g.agent.Log.Error("the root did not become good; the guard goes back",
		zap.String("root", s.Root), zap.String("to", g.back.ID), zap.String("reason", g.why))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	err := within(askTime, func() error { return g.returnTo(ctx, s) })
	if err == nil {
		g.enter(returning, s)
		return nil
	}
	return errors.Join(err, switcher.Disarm(), g.bootKernel(s))
}

func (g *guard) returnTo(ctx context.Context, s sight) error {
	a := g.agent
	back := Switch{Verb: verbBack, Before: g.change.Before}
	a.describe(&back, switcher.Facts{Root: s.Root, BootID: g.change.BootID, SoftReboots: g.arrivals()}, g.back.ID)
	g.report(s, back)
	for _, p := range g.back.Persist {
		if err := switcher.MakeWritable(p); err != nil && !errors.Is(err, unix.ENOENT) {
			a.Log.Warn("cannot make the state writable", zap.String("path", p), zap.Error(err))
		}
	}
	if err := removeStamp(a.path(stampFile)); err != nil {
		return err
	}
	if err := switcher.Arm(*g.back); err != nil {
		return err
	}
	err := a.writeStamp(switcher.Stamp{Target: g.back.ID, At: sinceBoot()})
	return errors.Join(err, a.Machine.SoftRebootNow(ctx))
}

// arrivals is the count of soft reboots in the new root, -1 where systemd does not count.
func (g *guard) arrivals() int {
	if g.change.SoftReboots < 0 {
		return -1
	}
	return g.change.SoftReboots + 1
}

// report tells what the guard does: in /run for whoever comes up next, and in the record if that can be written.
func (g *guard) report(s sight, back Switch) {
	a := g.agent
	text, err := json.Marshal(backNote{Left: s.Root, Reason: g.why, Switch: back})
	if err == nil {
		err = writeAtomically(a.path(backFile), text, 0o600)
	}
	if s.record != nil && s.record.retreat(CauseTakenOver, back, g.why) == nil {
		err = errors.Join(err, a.writeRecord(s.record))
	}
	if err != nil {
		a.Log.Warn("cannot tell all of going back", zap.Error(err))
	}
}

// bootKernel is the last resort. The host comes up in its mutable root, which resumes the last good one.
func (g *guard) bootKernel(s sight) error {
	g.agent.Log.Error("the guard boots the kernel", zap.String("reason", g.why))
	if s.record != nil {
		err := within(diskPatience, func() error { return g.agent.recordBoot(s.record, g.why) })
		if err != nil {
			g.agent.Log.Warn("cannot record the boot", zap.Error(err))
		}
	}
	return switcher.BootKernel()
}

// recordBoot writes down that the kernel is booted to get away from a root. If it cannot, the next start finds a root that
// was left before it was good.
func (a *Agent) recordBoot(rec *Record, why string) error {
	cause := CauseStranded
	if rec.Phase == PhaseArmed {
		cause = CauseMissed
	}
	verb := rec.Switch.Verb
	if err := rec.on(cause); err != nil {
		return err
	}
	const booted = "; the kernel was booted to get away from it"
	if verb == verbBack && rec.Last != nil {
		rec.Last.Reason += "; the way back did not end, so the kernel was booted"
	} else {
		rec.condemn(rec.Switch.Target, why+booted, a.Now().UTC())
		rec.Last = &Result{Outcome: switcher.Unhealthy, Reason: why + booted, Target: rec.Switch.Target, At: a.Now().UTC()}
	}
	return a.writeRecord(rec)
}

// unjam ends a shutdown that a unit holds up, as [switch] stuck says.
func (g *guard) unjam(ctx context.Context, s sight) error {
	why := fmt.Sprintf("the shutdown was not done within %v: %s", g.shutdown, stopping(s))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	switch {
	case g.stage == returning: // there is nothing to stay for in a root that is no good
		return g.killStopping(ctx, s, why)
	case g.agent.Config.Switch.Stuck == stuckCancel:
		return g.cancel(ctx, s, why)
	}
	return g.escalate(ctx, s, why)
}

// killStopping kills what does not stop. The next step, if there must be one, comes after a moment.
func (g *guard) killStopping(ctx context.Context, s sight, why string) error {
	g.agent.Log.Error("the shutdown is stuck; what does not stop is killed", zap.String("reason", why))
	g.kills++
	g.since = s.now - g.shutdown + killGrace
	return g.agent.Machine.KillUnits(ctx, s.manager.Stopping)
}

func stopping(s sight) string {
	if len(s.manager.Stopping) == 0 {
		return "no unit is stopping, and systemd does not go on"
	}
	return "still stopping: " + strings.Join(s.manager.Stopping, ", ")
}

// cancel takes the shutdown back. The record comes first: the arming unit does nothing when it does not announce a switch.
func (g *guard) cancel(ctx context.Context, s sight, why string) error {
	a := g.agent
	a.Log.Error("the shutdown is stuck and cancelled", zap.String("reason", why))
	// A record that cannot be written is put right by the next command: the switch has not happened.
	if err := within(diskPatience, func() error { return a.recordCancel(s.record, why+"; it was cancelled") }); err != nil {
		a.Log.Warn("cannot record that the shutdown was cancelled", zap.Error(err))
	}
	left, err := a.Machine.CancelShutdown(ctx, g.active)
	if len(left) > 0 {
		a.Log.Warn("these units are still stopping and were left to it", zap.Strings("units", left))
	}
	return errors.Join(err, switcher.Disarm(), switcher.Clear(), a.Machine.ReleaseArmUnit(ctx))
}

func (a *Agent) recordCancel(rec *Record, why string) error {
	if rec == nil {
		return errors.New("it cannot be read")
	}
	target := rec.Switch.Target
	if err := rec.on(CauseWithdrawn); err != nil {
		return err
	}
	rec.spare(target)
	rec.Last = &Result{Outcome: switcher.Stuck, Reason: why, Target: target, At: a.Now().UTC()}
	if err := a.writeRecord(rec); err != nil {
		return err
	}
	a.tell(Event{Event: "failed", Root: target, From: rec.Switch.From, Version: rec.Switch.Version, Reason: why})
	return nil
}

// escalate kills what holds the shutdown up; then has PID 1 go on without it; at last it boots the kernel.
func (g *guard) escalate(ctx context.Context, s sight, why string) error {
	a := g.agent
	if g.kills == 0 {
		return g.killStopping(ctx, s, why)
	}
	a.Log.Error("the shutdown is stuck still", zap.String("reason", why))
	g.kills++
	g.since = s.now - g.shutdown + killGrace
	if g.kills == 2 {
		if s.record == nil {
			return errors.New("cannot arm the new root: the record cannot be read")
		}
		if err := a.arm(ctx, s.record); err != nil {
			return err
		}
		err := a.writeStamp(switcher.Stamp{Target: g.change.Target, At: sinceBoot()})
		return errors.Join(err, a.Machine.SoftRebootHard(ctx))
	}
	g.why = why
	if s.record != nil && s.record.on(CauseMissed) == nil {
		s.record.Last = &Result{Outcome: switcher.Stuck, Reason: why + "; the kernel was booted", Target: g.change.Target, At: a.Now().UTC()}
		if err := a.writeRecord(s.record); err != nil {
			a.Log.Warn("cannot record the boot", zap.Error(err))
		}
	}
	return switcher.BootKernel()
}
