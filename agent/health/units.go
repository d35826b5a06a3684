package health

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/systemd"
)

// bootComplete is the target that others order their own checks before (systemd.special(7)).
const bootComplete = "boot-complete.target"

// pollInterval is how long to wait before systemd is asked again. Units start within some hundred milliseconds.
const pollInterval = 250 * time.Millisecond

// started waits until systemd has no unit left to start.
func (g Gate) started(ctx context.Context) Result {
	var lastKnown []string // the last answer, in case the deadline comes before the next one
	for {
		waiting, err := g.Systemd.Starting(ctx)
		waiting = slices.DeleteFunc(waiting, func(u string) bool {
			return g.isOwn(u) || nobodyWaitsFor(u) || runsByChance(ctx, g, u)
		})
		if err == nil {
			lastKnown = waiting
		}
		switch { // an error passes: systemd that re-executes itself answers again in a moment
		case err == nil && len(waiting) == 0:
			return Result{}
		case !sleep(ctx, pollInterval):
			if len(lastKnown) == 0 {
				return failf("systemd did not answer within %v: %v", g.Config.Deadline, err)
			}
			return failf("after %v these units are still starting: %s",
				g.Config.Deadline.Round(100*time.Millisecond), strings.Join(lastKnown, ", "))
		}
	}
}

// bootComplete starts the target and waits for it: after a soft reboot nothing else may pull it in. The agent's own
// unit does not block it: that unit is ordered after multi-user.target, and the target is not ordered after that unit.
func (g Gate) bootComplete(ctx context.Context) Result {
	ended, err := g.Systemd.Start(ctx, bootComplete)
	for err != nil && !errors.Is(err, systemd.ErrNoUnit) && !errors.Is(err, errDeadline) && sleep(ctx, pollInterval) {
		ended, err = g.Systemd.Start(ctx, bootComplete)
	}
	switch {
	case errors.Is(err, systemd.ErrNoUnit) || ended == "done":
		return Result{}
	case errors.Is(err, errDeadline):
		return g.notComplete(ctx, "it was not reached within "+g.Config.Deadline.String())
	case err != nil:
		return failf("%v", err)
	}
	return g.notComplete(ctx, "it was not reached ("+ended+")")
}

// blameTime is how long systemd may be asked after the deadline, so that the report can name the units to blame.
const blameTime = 2 * time.Second

// notComplete returns the failure of the target, with the units that it requires and that are not active.
func (g Gate) notComplete(ctx context.Context, reason string) Result {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), blameTime)
	defer cancel()
	required, err := g.Systemd.Requires(ctx, bootComplete)
	units, unitsErr := g.Systemd.Units(ctx)
	if err == nil && unitsErr == nil {
		missing := systemd.NamesOf(units, func(u systemd.Unit) bool {
			return u.Active != "active" && slices.Contains(required, u.Name)
		})
		if len(missing) > 0 {
			reason += ": it requires " + strings.Join(missing, ", ")
		}
	}
	r := failf("%s", reason)
	r.final = true
	return r
}

// noneFailed checks that no unit failed that had not failed before the switch, nor when the root was last good. It
// notes in state which ones have failed.
func (g Gate) noneFailed(ctx context.Context, before Before, state *State) Result {
	units, err := g.Systemd.Units(ctx)
	if err != nil {
		return failf("%v", err)
	}
	state.Failed = systemd.NamesOf(units, g.failedHere)
	all := g.countAgainst(slices.Clone(state.Failed), before.Failed)
	failed := g.countAgainst(slices.Clone(all), before.FailedWhenGood)
	failed = slices.DeleteFunc(failed, func(u string) bool { return runsByChance(ctx, g, u) })
	switch {
	case len(all) == 0:
		return Result{}
	case len(failed) == 0:
		return warnf("these failed, but had failed in a good root, too, or run only now and then: %s",
			strings.Join(all, ", "))
	case before.Unknown:
		return warnf("these failed, and may have failed before: %s", strings.Join(failed, ", "))
	}
	r := failf("these failed and had not before the switch: %s", strings.Join(failed, ", "))
	r.final = true
	return r
}

// noneLooping watches the services for a while: none may be in a restart loop that was not in one before the switch.
func (g Gate) noneLooping(ctx context.Context, before Before) Result {
	looping, whole, err := g.looping(ctx, false)
	if err != nil {
		return failf("%v", err)
	}
	if !whole {
		return failf("the services could not be watched for %v: %v", g.Config.Settle, whyTimeIsUp(ctx))
	}
	looping = g.countAgainst(looping, before.Restarting)
	switch {
	case len(looping) > 0 && before.Unknown:
		return warnf("these crash and are restarted, and may have been before: %s", strings.Join(looping, ", "))
	case len(looping) > 0:
		return failf("these crash and are restarted: %s", strings.Join(looping, ", "))
	}
	return Result{}
}

// looping returns the services that systemd restarts again and again, and whether they were watched for the whole of
// [Config.Settle]. With quick, it returns at once when no service was ever restarted.
func (g Gate) looping(ctx context.Context, quick bool) (looping []string, whole bool, err error) {
	earlier, err := g.Systemd.Units(ctx)
	if err != nil {
		return nil, false, err
	}
	services := systemd.NamesOf(earlier, systemd.Unit.Running)
	first, err := g.Systemd.Restarts(ctx, services)
	if err != nil {
		return nil, false, err
	}
	looping = systemd.NamesOf(earlier, systemd.Unit.Restarting)
	if quick && len(looping) == 0 && !anyRestarted(first) {
		return nil, true, nil
	}
	whole = sleep(ctx, g.Config.Settle)
	if !whole {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), blameTime)
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
	// A service that was waiting for its restart and runs now has recovered, unless it was restarted once more.
	looping = systemd.NamesOf(later, systemd.Unit.Restarting)
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

// active checks that a unit is active.
func (g Gate) active(ctx context.Context, unit string) Result {
	units, err := g.Systemd.Units(ctx)
	if err != nil {
		return failf("%v", err)
	}
	i := slices.IndexFunc(units, func(u systemd.Unit) bool { return u.Name == unit })
	switch {
	case i < 0:
		return failf("it must be active and is not loaded")
	case units[i].Active != "active" && units[i].Active != "reloading":
		return failf("it must be active and is %s (%s)", units[i].Active, units[i].Sub)
	}
	return Result{}
}

// failedHere reports whether a unit failed in this root. PID 1 remembers across a soft reboot which units failed while
// they were stopped.
func (g Gate) failedHere(u systemd.Unit) bool { return u.Failed() && u.Changed >= g.Since }

// countAgainst returns, sorted, the units that count against the root: not those that were so before, nor the agent's
// own, nor those of users, nor those that the configuration ignores.
func (g Gate) countAgainst(units, before []string) []string {
	units = slices.DeleteFunc(units, func(u string) bool {
		return slices.Contains(before, u) || g.isOwn(u) || isOfUsers(u) || g.isIgnored(u)
	})
	slices.Sort(units)
	return units
}

func (g Gate) isOwn(unit string) bool { return slices.Contains(g.Own, unit) }

func (g Gate) isIgnored(unit string) bool {
	return slices.ContainsFunc(g.Config.Ignore, func(pattern string) bool {
		matched, _ := path.Match(pattern, unit) // Validate has tried the pattern
		return matched
	})
}
