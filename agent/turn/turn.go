// Package turn answers whether others let this host switch now: an operator who paused updates, the rollout of the
// release, the lock server of the fleet, and hooks. It promises that whoever heard of a switch also hears how it ended,
// even if the host crashes in between, and that nobody is asked about a way back.
package turn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/hook"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/rollout"
	"github.com/updatectl/updatectl/image/release"
)

var (
	// ErrRollout means that it is not the turn of this host in the rollout of the release.
	ErrRollout = fmt.Errorf("%w: the rollout of the release", record.ErrBlocked)
	// ErrLock means that the lock server gave no slot.
	ErrLock = fmt.Errorf("%w: the lock server gave no slot", record.ErrBlocked)
	// ErrHook means that a hook keeps the host from going on.
	ErrHook = fmt.Errorf("%w: by a hook", record.ErrBlocked)
)

// EventIgnored is the event of the history when an operator ignores a rollout.
const EventIgnored = "rollout ignored"

// Turn asks others on behalf of one host.
type Turn struct{ *host.Host }

// maxMachineID bounds /etc/machine-id, in bytes.
const maxMachineID = 128

// machineIDForm matches a machine ID. Other texts, such as "uninitialized", are the same on many hosts.
var machineIDForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// MachineID returns the machine ID, "" where there is none.
func (t *Turn) MachineID() string {
	text, err := t.Machine.Disk.ReadFile(t.Path("/etc/machine-id"), maxMachineID)
	if id := strings.TrimSpace(string(text)); err == nil && machineIDForm.MatchString(id) {
		return id
	}
	return ""
}

// Verdict returns whether it is the turn of this host to take a release; nil stands for an image without one.
func (t *Turn) Verdict(r *release.Release) rollout.Verdict {
	if r == nil {
		return rollout.Verdict{Go: true}
	}
	wariness, id := t.Config.Rollout.Wariness, t.MachineID()
	if last := 1.0; id == "" && wariness == nil { // hosts without a machine ID would all have one position
		wariness = &last
	}
	position := rollout.Position(wariness, id, r.Version, t.Config.Fleet.Group)
	return rollout.Decide(r.Rollout, position, t.Now())
}

// May returns why the host must not switch to what is published: a [pause.ErrPaused] or an [ErrRollout]. Ignore is
// whether the operator ignores the rollout, which the history keeps.
func (t *Turn) May(r *release.Release, ignore bool) error {
	if err := t.paused(); err != nil {
		return err
	}
	err := t.MayFetch(r)
	if err != nil && ignore {
		v := t.Verdict(r)
		t.Records.AppendEvent(record.Event{Event: EventIgnored, Version: r.Version, Sequence: r.Sequence, Reason: v.Text()})
		t.Log.Warn("ignoring the rollout, as asked", zap.String("rollout", v.Text()))
		return nil
	}
	return err
}

// MayFetch returns an [ErrRollout] if the host must not fetch a release yet.
func (t *Turn) MayFetch(r *release.Release) error {
	if v := t.Verdict(r); !v.Go {
		return fmt.Errorf("%w: %s", ErrRollout, v.Text())
	}
	return nil
}

// BeforeFetch runs the hooks that may keep the host from fetching.
func (t *Turn) BeforeFetch(ctx context.Context, about hook.About) error {
	return t.ask(ctx, hook.BeforeFetch, about)
}

// ask runs the hooks of an event that they can veto, which is an ErrHook.
func (t *Turn) ask(ctx context.Context, e hook.Event, about hook.About) error {
	_, err := hook.Run(ctx, t.hooks(), e, about, time.Duration(t.Config.Hooks.Deadline))
	if errors.Is(err, hook.ErrVeto) {
		return fmt.Errorf("%w: %w", ErrHook, err)
	}
	return err
}

// tell runs the hooks of an event that they cannot veto. The error says that not all of them ran; that one failed is
// only logged.
func (t *Turn) tell(ctx context.Context, e hook.Event, about hook.About) error {
	warnings, err := hook.Run(ctx, t.hooks(), e, about, time.Duration(t.Config.Hooks.Deadline))
	for _, w := range warnings {
		t.Log.Warn(w)
	}
	return err
}

// hooks returns the directories of hooks.
func (t *Turn) hooks() hook.Dirs {
	return hook.Dirs{t.Path("/usr/lib/updatectl/hooks.d"), t.Path("/etc/updatectl/hooks.d")}
}

// patience is how long a switch asks the lock server for a slot. An unattended one is tried again later.
const patience = time.Minute

// Begin asks the lock server for a slot, and the hooks whether the host may switch now. Last is how the switch before
// ended, nil for none. The error is an [ErrLock], an [ErrHook], or a [pause.ErrPaused] of an operator who does not want
// it any more; then nothing is held, and the hooks know it. Otherwise, [Turn.CallOff] or [Turn.Arrived] ends it.
func (t *Turn) Begin(ctx context.Context, about hook.About, last *record.Result) error {
	var before time.Time
	if last != nil {
		before = last.At
	}
	err := t.paused()
	if err == nil {
		err = t.takeSlot(ctx, about, before)
	}
	if err != nil {
		return err
	}
	if hook.Any(t.hooks()) {
		n := t.readNote()
		n.Announced = &Announced{At: t.Now().UTC(), Before: before, About: about}
		if err = t.writeNote(n); err == nil {
			err = t.ask(ctx, hook.BeforeSwitch, about)
		}
	}
	if err = cmp.Or(err, t.paused()); err != nil { // hooks take minutes
		t.CallOff(ctx, err.Error())
	}
	return err
}

// paused returns an [pause.ErrPaused] if an operator paused updates.
func (t *Turn) paused() error {
	if p := pause.Current(t.Host); p != nil {
		return p.Err()
	}
	return nil
}

// hurry is how long a command that was interrupted takes to call a switch off: whoever interrupted it waits.
const hurry = 20 * time.Second

// CallOff tells the hooks that the switch does not happen, and gives the slot back. What fails here is tried again by
// [Turn.Arrived].
func (t *Turn) CallOff(ctx context.Context, reason string) {
	interrupted := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx) // a switch that was interrupted has to be called off, too
	if interrupted {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, hurry)
		defer cancel()
	}
	if n := t.readNote(); n.Announced != nil {
		about := n.Announced.About
		about.Reason = reason
		err := t.tell(ctx, hook.CalledOff, about)
		if err == nil {
			n.Announced = nil
			err = t.writeNote(n)
		}
		if err != nil {
			t.Log.Warn("the hooks will hear again that the switch was called off", zap.Error(err))
		}
	}
	slot, err := fleetlock.Read(t.Machine.Disk, t.Path(record.StateDir))
	if err != nil || slot == nil || slot.Failed != "" {
		return
	}
	if err := t.giveBack(ctx, *slot); err != nil {
		t.Log.Warn("the slot is given back later", zap.Error(err))
	}
}

// Slot returns the slot that the host may hold, nil for none.
func (t *Turn) Slot() (*fleetlock.Slot, error) {
	return fleetlock.Read(t.Machine.Disk, t.Path(record.StateDir))
}

// takeSlot takes a slot of the lock server, if one is configured.
func (t *Turn) takeSlot(ctx context.Context, about hook.About, before time.Time) error {
	if t.Config.FleetLock.URL == "" {
		return nil
	}
	id, err := fleetlock.ID(t.MachineID())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLock, err)
	}
	dir := t.Path(record.StateDir)
	old, err := fleetlock.Read(t.Machine.Disk, dir)
	if errors.Is(err, fleetlock.ErrDamaged) { // asking again for the same group gives the same slot
		t.Log.Warn(err.Error())
		old, err = nil, nil
	}
	if err != nil {
		return err
	}
	if old != nil && old.Wants == fleetlock.GiveBack && old.Client() != (fleetlock.Client{URL: t.Config.FleetLock.URL,
		Group: t.Config.Fleet.Group, ID: id}) { // of another server or group
		if err := t.giveBack(ctx, *old); err != nil {
			return fmt.Errorf("%w: the one of before is not given back yet: %w", ErrLock, err)
		}
		old = nil
	}
	client := fleetlock.Client{URL: t.Config.FleetLock.URL, Group: t.Config.Fleet.Group, ID: id}
	slot, err := fleetlock.For(old, client, about.To, about.Version, t.Now())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLock, err)
	}
	slot.Before = before
	if err := fleetlock.Write(t.Machine.Disk, dir, slot); err != nil {
		return err
	}
	err = client.TakeWithin(ctx, t.wait())
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w: %w", ErrLock, err)
	if slot.Failed != "" { // it was held before, and is held still
		return err
	}
	if errors.Is(err, fleetlock.ErrHeld) {
		return errors.Join(err, fleetlock.Remove(t.Machine.Disk, dir))
	}
	slot.Wants = fleetlock.GiveBack // whether the server gave one is unknown
	return errors.Join(err, fleetlock.Write(t.Machine.Disk, dir, slot))
}

// wait returns how a switch waits for a slot.
func (t *Turn) wait() fleetlock.Wait {
	return fleetlock.Wait{
		Within: patience, Now: t.Now, Random: rand.Float64,
		Sleep: func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(d):
				return nil
			}
		},
		Failed: func(err error, pause time.Duration) {
			t.Log.Info("waiting for a slot of the fleet", zap.Error(err), zap.Duration("again in", pause))
		},
	}
}

// giveBack gives a slot back. When it returns an error, the note on the disk says that it has to be done.
func (t *Turn) giveBack(ctx context.Context, slot fleetlock.Slot) error {
	dir := t.Path(record.StateDir)
	if slot.Wants != fleetlock.GiveBack {
		slot.Wants = fleetlock.GiveBack
		if err := fleetlock.Write(t.Machine.Disk, dir, slot); err != nil {
			return err
		}
	}
	if err := slot.Client().GiveBack(ctx); err != nil {
		return err
	}
	return fleetlock.Remove(t.Machine.Disk, dir)
}

// GiveBack gives the slot back because an operator says so, whatever happened to the host. It reports whether there was
// one.
func (t *Turn) GiveBack(ctx context.Context) (*fleetlock.Slot, error) {
	slot, err := t.Slot()
	if err != nil || slot == nil {
		return nil, err
	}
	return slot, t.giveBack(ctx, *slot)
}
