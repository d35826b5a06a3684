// Package unattended answers what the timer does now: nothing, fetch, or switch. It promises that a host which has to
// return to its last good root does so at once, and that nobody is surprised by any other switch: it is in a window,
// and people who are logged in know before.
package unattended

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/attempt"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/decide"
	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/rollout"
	"github.com/updatectl/updatectl/agent/schedule"
	"github.com/updatectl/updatectl/agent/turn"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// ErrNotNow means that the schedule of the host does not allow the step now. It wraps [record.ErrBlocked].
var ErrNotNow = fmt.Errorf("%w: not now", record.ErrBlocked)

// Surroundings are what a schedule depends on besides the clock.
type Surroundings struct {
	Analyze schedule.Analyze
	// Designated returns the maintenance time of logind as a calendar expression, "" for none.
	Designated func(context.Context) string
	// Users returns who is logged in. Tell tells them when the host switches, and CallOff that it does not, and why.
	Users   func(context.Context) []string
	Tell    func(ctx context.Context, at time.Time)
	CallOff func(ctx context.Context, why string)
	// Inhibitors returns who blocks a shutdown, "" for nobody.
	Inhibitors func(context.Context) string
	Metered    func(context.Context) bool
	OnBattery  func() bool
	Sleep      func(context.Context, time.Duration) error
}

// Runner runs the steps of an unattended update.
type Runner struct {
	*agent.Agent
	Surroundings
	// Word returns one word for an error, as docs/exit-codes.md lists them.
	Word func(error) string
}

// Fetch fetches and stages what is published, if the schedule allows.
func (r *Runner) Fetch(ctx context.Context, o agent.ApplyOptions) (done agent.Applied, err error) {
	if when, recent := r.recentlyChecked(); recent {
		return agent.Applied{Skipped: "the source answered at " + when.Local().Format("15:04")}, nil
	}
	defer func() { r.keep(done, err) }()
	o.Unattended = true
	if f, _, err := r.Look(ctx); err == nil { // what is wrong with the host is found again when it is staged
		r.remind(f)
	}
	if v, err := r.decide(ctx, schedule.Facts{Step: schedule.Fetch, Metered: r.Metered(ctx)}); err != nil {
		return done, err
	} else if v.Action != schedule.Go {
		return done, notNow{v}
	}
	done, _, err = r.stage(ctx, o)
	return done, err
}

// maxBarriers bounds how many releases that come first a host goes through in one run.
const maxBarriers = 8

// stage stages what is published. If another release comes first, it stages that one, which is published under the tag
// of its version. It returns the options by which the same is applied.
func (r *Runner) stage(ctx context.Context, o agent.ApplyOptions) (agent.Applied, agent.ApplyOptions, error) {
	var first error // the barrier of what was asked for last
	for range maxBarriers {
		if left, is := r.leaves(ctx, o.From); is {
			return left, o, nil
		}
		done, err := r.Stage(ctx, o)
		var barrier *release.Barrier
		switch {
		case errors.Is(err, failure.ErrNotFound) && first != nil:
			return done, o, fmt.Errorf("%w; and it is not there: %w", first, err)
		case !errors.As(err, &barrier):
			return done, o, err
		}
		next := source.WithTag(cmp.Or(o.From, r.Config.Source.Image), barrier.Version)
		if next == "" || next == o.From {
			return done, o, err
		}
		r.Log.Info("another release comes first", zap.String("version", barrier.Version), zap.String("reference", next))
		o.From, first = next, err
	}
	return agent.Applied{}, o, first
}

// leaves reports whether what is published was given up on this host: then it is not even staged.
func (r *Runner) leaves(ctx context.Context, reference string) (agent.Applied, bool) {
	found, err := r.Check(ctx, reference)
	if err != nil || found.Bad == nil || !found.Newer { // what is wrong is found again when it is staged
		return agent.Applied{}, false
	}
	return agent.Applied{
		Root: found.Root, From: found.Booted, Reference: found.Reference, Version: found.Version, Vouchers: found.Vouchers,
		Release: found.Release, Warnings: found.Warnings, Bad: found.Bad, Skipped: found.Bad.WhenAndWhy(),
	}, true
}

// recentlyChecked returns when the source last answered, and reports whether that was in this hour of the host. The
// timer looks more often, for the windows. After an outage of the registry, all hosts ask when their timers look next,
// and then each in its own hour again.
func (r *Runner) recentlyChecked() (time.Time, bool) {
	last := attempt.Last(r.Host)
	if last == nil {
		return time.Time{}, false
	}
	now := r.Now()
	return last.Checked, !last.Checked.After(now) && !last.Checked.Before(schedule.Hour(now, r.part("fetch")))
}

// Apply brings the host to what is published, if the schedule allows. A host that has to return to its last good root
// does not wait.
func (r *Runner) Apply(ctx context.Context, o agent.ApplyOptions) (done agent.Applied, err error) {
	o.Unattended = true
	if err := r.Turn.Settle(ctx); err != nil && !errors.Is(err, turn.ErrNotOver) {
		r.Log.Warn("not everybody knows how the last switch ended", zap.Error(err))
	}
	defer func() { r.keep(done, err) }()
	f, rec, err := r.Look(ctx)
	if err != nil {
		return done, err
	}
	r.remind(f)
	if decide.Stranded(f, rec, decide.Wish{Unattended: true}) {
		return r.Agent.Apply(ctx, o)
	}
	facts := schedule.Facts{Step: schedule.Switch, OnBattery: r.OnBattery(), Pause: r.pause()}
	if v, err := r.decide(ctx, facts); err != nil {
		return done, err
	} else if v.Action != schedule.Go {
		return done, notNow{v}
	}
	staged, o, err := r.stage(ctx, o)
	if err != nil && !errors.Is(err, record.ErrGivenUp) {
		return staged, err
	}
	if d := decide.Apply(f, rec, decide.Offering{Root: staged.Root, Image: true}, decide.Wish{Unattended: true},
		false); d.Do == decide.Switch { // otherwise nobody has to leave
		return r.afterPeople(ctx, facts, staged, func() (agent.Applied, error) { return r.Agent.Apply(ctx, o) })
	}
	return r.Agent.Apply(ctx, o)
}

// afterPeople switches when it may, by apply. People who were told of the switch are told, too, if it does not happen.
func (r *Runner) afterPeople(ctx context.Context, f schedule.Facts, done agent.Applied,
	apply func() (agent.Applied, error)) (agent.Applied, error) {
	told, err := r.waitForPeople(ctx, f)
	if err == nil {
		done, err = apply()
	}
	switch without := context.WithoutCancel(ctx); {
	case !told, ctx.Err() != nil: // somebody ends this run: a person who switches, or who shuts the host down
	case err != nil:
		r.CallOff(without, err.Error())
	case !done.Switching:
		r.CallOff(without, done.Skipped)
	}
	return done, err
}

// look is how often a run looks again at what it waits for.
const look = 30 * time.Second

// waitForPeople waits until no inhibitor lock blocks a switch and those who are logged in had their time.
// It reports whether they were told that the host switches.
func (r *Runner) waitForPeople(ctx context.Context, f schedule.Facts) (told bool, err error) {
	f.Grace = time.Duration(r.Config.Schedule.Grace)
	deadline := r.Now().Add(time.Duration(r.Config.Schedule.Inhibitors))
	for {
		f.Users, f.Pause = r.Users(ctx), r.pause()
		f.Inhibitor = schedule.Inhibitor{Who: r.Inhibitors(ctx), Deadline: deadline}
		v, err := r.decide(ctx, f)
		if err != nil {
			return told, err
		}
		now := r.Now()
		switch {
		case v.Action == schedule.Go:
			return told, nil
		case v.Action == schedule.GiveUp, v.Kind != schedule.KindInhibitor && v.Kind != schedule.KindPeople,
			v.Kind == schedule.KindPeople && v.Until.Sub(now) > f.Grace:
			return told, notNow{v}
		case v.Tell:
			f.Told, told = now, true
			r.Tell(ctx, v.Until.Local())
		}
		r.Log.Info("waiting before the switch", zap.String("for", v.Text))
		attempt.Keep(r.Host, attempt.Attempt{Reason: string(v.Kind), Text: v.Text, Until: v.Until})
		if err := r.Sleep(ctx, min(look, max(time.Second, v.Until.Sub(now)))); err != nil {
			return told, err
		}
	}
}

// decide adds the window of the step to the facts, and decides.
func (r *Runner) decide(ctx context.Context, f schedule.Facts) (schedule.Verdict, error) {
	now := r.Now()
	w, err := r.Calendar(ctx, f.Step).At(ctx, r.Analyze, now)
	if err != nil {
		return schedule.Verdict{}, invalid(r, string(f.Step), err)
	}
	f.Fetch, f.Switch = w, w // only that of the step counts
	return schedule.Decide(now, f), nil
}

// invalid returns the error of windows that systemd does not understand, a [config.ErrConfig].
func invalid(r *Runner, key string, err error) error {
	return fmt.Errorf("%w: %s[schedule] %s: %w", config.ErrConfig, r.Config.Where("schedule."+key), key, err)
}

// CheckWindows returns a [config.ErrConfig] for each list of windows that systemd does not understand.
func (r *Runner) CheckWindows(ctx context.Context) (err error) {
	for _, step := range []schedule.Step{schedule.Fetch, schedule.Switch} {
		if cerr := r.Calendar(ctx, step).Check(ctx, r.Analyze); cerr != nil {
			err = errors.Join(err, invalid(r, string(step), cerr))
		}
	}
	return err
}

// Calendar returns when the windows of a step open. If no file sets [schedule] switch, the maintenance time of logind
// counts before the default.
func (r *Runner) Calendar(ctx context.Context, step schedule.Step) schedule.Calendar {
	s := r.Config.Schedule
	c := schedule.Calendar{Starts: s.Fetch, Zone: s.TimeZone, Length: time.Duration(s.Length), Spread: r.part("window")}
	if step == schedule.Switch {
		c.Starts = s.Switch
		if designated := r.Designated(ctx); designated != "" && r.Config.Where("schedule.switch") == "" {
			c.Starts = []string{designated}
		}
	}
	return c
}

// part returns a number from 0 to less than 1 that is this host's own for something, so that the hosts of a fleet do
// not do it together: how much of the first half of a window it lets pass, and when its hour begins.
func (r *Runner) part(what string) float64 {
	id := r.Turn.MachineID()
	if id == "" {
		return 0
	}
	return rollout.Slot(id, what, "")
}

// pause returns the pause of the operator in the form of a schedule.
func (r *Runner) pause() schedule.Pause {
	p := pause.Current(r.Host)
	if p == nil {
		return schedule.Pause{}
	}
	return schedule.Pause{On: true, Until: p.Until, By: p.By, Reason: p.Reason}
}

// keep keeps how the run ended, for people and monitoring.
func (r *Runner) keep(done agent.Applied, err error) {
	var a attempt.Attempt
	if err != nil {
		a.Reason, a.Text = r.Word(err), err.Error()
	}
	var n notNow
	if errors.As(err, &n) {
		a.Text, a.Until = n.Text, n.Until
	}
	if err != nil && Blocked(err) != "" {
		r.Log.Info("the unattended run does not go on", event.Waiting.Field(), zap.String("reason", a.Reason),
			zap.String("waits for", a.Text))
	}
	if done.Reference != "" { // it has answered, and what it published was verified
		a.Checked = r.Now().UTC()
		if done.Decision != nil {
			a.Staged, a.Level = done.Root, done.Decision.Level
		}
	}
	attempt.Keep(r.Host, a)
}

// notNow is an [ErrNotNow] with what the schedule says.
type notNow struct{ schedule.Verdict }

func (n notNow) Error() string { return fmt.Sprintf("%v: %s", ErrNotNow, n.Text) }
func (n notNow) Unwrap() error { return ErrNotNow }

// Blocked returns in one word who or what does not let the host go on now, "" if it is nothing of the kind.
func Blocked(err error) string {
	var n notNow
	if errors.As(err, &n) {
		return string(n.Kind)
	}
	for _, b := range []struct {
		err  error
		kind schedule.Kind
	}{
		{pause.ErrPaused, schedule.KindPaused}, {turn.ErrRollout, schedule.KindRollout},
		{turn.ErrLock, schedule.KindLock}, {turn.ErrHook, schedule.KindHook},
		{pid1.ErrInhibited, schedule.KindInhibitor}, {release.ErrBarrier, "barrier"}, {record.ErrBusy, "busy"},
	} {
		if errors.Is(err, b.err) {
			return string(b.kind)
		}
	}
	return ""
}
