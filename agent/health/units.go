package health

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"
)

// bootComplete is where others put their own checks (systemd.special(7)).
const bootComplete = "boot-complete.target"

// lookAgain is how long to wait before systemd is asked again. Units start in some hundred milliseconds.
const lookAgain = 250 * time.Millisecond

// started waits until systemd has no more units to start.
func (g Gate) started(ctx context.Context) Result {
	var known []string // the last answer: the deadline may come upon an open question
	for {
		waiting, err := g.Systemd.Starting(ctx)
		waiting = slices.DeleteFunc(waiting, g.own)
		if err == nil {
			known = waiting
		}
		switch { // systemd that is executed anew answers again in a moment
		case err == nil && len(waiting) == 0:
			return Result{}
		case !sleep(ctx, lookAgain):
			if len(known) == 0 {
				return failf("systemd did not answer before %v were over: %v", g.Config.Deadline, err)
			}
			return failf("after %v these units are still starting: %s", g.Config.Deadline.Round(100*time.Millisecond), strings.Join(known, ", "))
		}
	}
}

// bootComplete reaches the target, which nothing else may want after a soft reboot. The caller's own unit stands not in
// its way: it is ordered after multi-user.target, and the target is not ordered after it.
func (g Gate) bootComplete(ctx context.Context) Result {
	ended, err := g.Systemd.Start(ctx, bootComplete)
	for err != nil && !errors.Is(err, errNoUnit) && !errors.Is(err, errDeadline) && sleep(ctx, lookAgain) {
		ended, err = g.Systemd.Start(ctx, bootComplete)
	}
	switch {
	case errors.Is(err, errNoUnit) || ended == "done":
		return Result{}
	case errors.Is(err, errDeadline):
		return g.notComplete(ctx, "it was not reached before "+g.Config.Deadline.String()+" were over")
	case err != nil:
		return failf("%v", err)
	}
	return g.notComplete(ctx, "it was not reached ("+ended+")")
}

// askAfter is how long systemd is asked when the gate's time is over, so that the report can name who is to blame.
const askAfter = 2 * time.Second

// notComplete names the units that kept the target from being reached.
func (g Gate) notComplete(ctx context.Context, reason string) Result {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askAfter)
	defer cancel()
	required, err := g.Systemd.Requires(ctx, bootComplete)
	units, uerr := g.Systemd.Units(ctx)
	if err == nil && uerr == nil {
		missing := names(units, func(u Unit) bool { return u.Active != "active" && slices.Contains(required, u.Name) })
		if len(missing) > 0 {
			reason += ": it requires " + strings.Join(missing, ", ")
		}
	}
	r := failf("%s", reason)
	r.final = true
	return r
}

// noneFailed holds the units that failed against those that had failed before.
func (g Gate) noneFailed(ctx context.Context, before Before) Result {
	units, err := g.Systemd.Units(ctx)
	if err != nil {
		return failf("%v", err)
	}
	failed := g.blamed(names(units, g.failedHere), before.Failed)
	switch {
	case len(failed) == 0:
		return Result{}
	case before.Unknown:
		return warnf("these failed, as they may have before: %s", strings.Join(failed, ", "))
	}
	r := failf("these failed and had not before the switch: %s", strings.Join(failed, ", "))
	r.final = true
	return r
}

// steady watches the services for a while: none may crash again and again that did not before.
func (g Gate) steady(ctx context.Context, before Before) Result {
	looping, whole, err := g.looping(ctx, false)
	if err != nil {
		return failf("%v", err)
	}
	if !whole {
		return failf("the services could not be watched for %v: %v", g.Config.Settle, why(ctx))
	}
	looping = g.blamed(looping, before.Restarting)
	switch {
	case len(looping) > 0 && before.Unknown:
		return warnf("these crash and are restarted, as they may have been before: %s", strings.Join(looping, ", "))
	case len(looping) > 0:
		return failf("these crash and are restarted: %s", strings.Join(looping, ", "))
	}
	return Result{}
}

// looping lists the services that systemd restarts again and again, and tells whether it could watch them for the whole
// time. With quick it does not wait when no service was ever restarted.
func (g Gate) looping(ctx context.Context, quick bool) (looping []string, whole bool, err error) {
	earlier, err := g.Systemd.Units(ctx)
	if err != nil {
		return nil, false, err
	}
	services := names(earlier, Unit.running)
	first, err := g.Systemd.Restarts(ctx, services)
	if err != nil {
		return nil, false, err
	}
	looping = names(earlier, Unit.restarting)
	if quick && len(looping) == 0 && !anyRestarted(first) {
		return nil, true, nil
	}
	whole = sleep(ctx, g.Config.Settle)
	if !whole {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), askAfter)
		defer cancel()
	}
	second, err := g.Systemd.Restarts(ctx, services)
	if err != nil {
		return nil, whole, err
	}
	later, err := g.Systemd.Units(ctx)
	if err != nil {
		return nil, whole, err
	}
	// One that waited for its restart and runs now has recovered, unless it was restarted once more.
	looping = names(later, Unit.restarting)
	for _, s := range services {
		if second[s] > first[s] && !slices.Contains(looping, s) {
			looping = append(looping, s)
		}
	}
	return looping, whole, nil
}

func anyRestarted(counts map[string]int) bool {
	for _, n := range counts {
		if n > 0 {
			return true
		}
	}
	return false
}

// active tells whether a unit that must run runs.
func (g Gate) active(ctx context.Context, unit string) Result {
	units, err := g.Systemd.Units(ctx)
	if err != nil {
		return failf("%v", err)
	}
	i := slices.IndexFunc(units, func(u Unit) bool { return u.Name == unit })
	switch {
	case i < 0:
		return failf("it must be active and is not loaded")
	case units[i].Active != "active" && units[i].Active != "reloading":
		return failf("it must be active and is %s (%s)", units[i].Active, units[i].Sub)
	}
	return Result{}
}

// failedHere tells whether a unit failed in this root. PID 1 remembers over a soft reboot what failed when it was stopped.
func (g Gate) failedHere(u Unit) bool { return u.failed() && u.Changed >= g.Since }

// blamed leaves the units that count against the root.
func (g Gate) blamed(units, before []string) []string {
	units = slices.DeleteFunc(units, func(u string) bool { return slices.Contains(before, u) || g.own(u) || g.ignored(u) })
	slices.Sort(units)
	return units
}

func (g Gate) own(unit string) bool { return slices.Contains(g.Own, unit) }

func (g Gate) ignored(unit string) bool {
	return slices.ContainsFunc(g.Config.Ignore, func(pattern string) bool {
		matched, _ := path.Match(pattern, unit) // Validate has tried the pattern
		return matched
	})
}
