package turn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/hook"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// ErrNotOver means that a switch is still under way.
var ErrNotOver = errors.New("the switch is not over yet")

// Announced is a switch that hooks were asked about.
type Announced struct {
	At time.Time `json:"at"`
	// Before is when the previous switch ended, zero for none: a result with another time is that of this switch.
	Before time.Time `json:"before,omitzero"`
	hook.About
}

// note is what the host has to tell its hooks.
type note struct {
	// Announced is the switch whose end they have not heard of, nil for none.
	Announced *Announced `json:"announced,omitempty"`
	// Told is the time of the last switch that they heard the end of, or that was before the first hook.
	Told time.Time `json:"told,omitzero"`
}

const (
	noteFile = record.StateDir + "/hooks.json"
	maxNote  = 64 << 10
)

// readNote returns the note, an empty one if there is none that can be read: hooks may then hear of something twice.
func (t *Turn) readNote() (n note) {
	text, err := t.Machine.Disk.ReadFile(t.Path(noteFile), maxNote)
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Log.Warn("cannot read what the hooks were told", zap.Error(err))
		return note{}
	}
	return n
}

func (t *Turn) writeNote(n note) error {
	text, err := json.MarshalIndent(n, "", "  ")
	if err == nil {
		err = t.Machine.Disk.WriteFile(t.Path(noteFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep what the hooks were told: %w", err)
	}
	return nil
}

// Settle is [Turn.Arrived] under the lock, if there is anything to tell or to give back. The error is a
// [record.ErrBusy] while another updatectl is running.
func (t *Turn) Settle(ctx context.Context) error {
	if slot, err := t.Slot(); err == nil && slot == nil && !hook.Any(t.hooks()) {
		return nil
	}
	unlock, err := t.Lock(ctx, "arrived", false)
	if err != nil {
		return err
	}
	defer unlock()
	facts, rec, err := t.Look(ctx)
	if err != nil {
		return err
	}
	return t.Arrived(ctx, facts.Root, rec)
}

// Arrived tells the hooks how the last switch ended, and gives the slot back or keeps it. The error is an [ErrNotOver]
// while a switch is under way. After another error it is worth trying again.
func (t *Turn) Arrived(ctx context.Context, running string, rec *record.Record) error {
	if rec.Moving() {
		return ErrNotOver
	}
	told := t.tellHooks(ctx, running, rec)
	slot, err := t.Slot()
	if err != nil {
		return errors.Join(told, err)
	}
	return errors.Join(told, t.settleSlot(ctx, slot, running, rec))
}

// settleSlot gives the slot back or keeps it.
func (t *Turn) settleSlot(ctx context.Context, slot *fleetlock.Slot, running string, rec *record.Record) error {
	switch o := slotOutcome(slot, running, rec); fleetlock.Next(slot, o) {
	case fleetlock.DoGiveBack:
		return t.giveBack(ctx, *slot)
	case fleetlock.DoKeep:
		if rec.Last == nil || slot.Failed == rec.Last.Reason {
			return nil
		}
		slot.Failed = rec.Last.Reason
		t.Log.Warn("keeping the slot of the lock server, so that no other host follows: the switch failed; "+
			"`updatectl slot give-back` gives it back", event.SlotKept.Field(), zap.String("reason", slot.Failed))
		return fleetlock.Write(t.Machine.Disk, t.Path(record.StateDir), *slot)
	}
	return nil
}

// tellHooks runs the hooks of the events that they have not heard of. After an error, they hear of them again.
func (t *Turn) tellHooks(ctx context.Context, running string, rec *record.Record) error {
	if !hook.Any(t.hooks()) {
		return nil
	}
	n := t.readNote()
	if n == (note{}) && rec.Last != nil { // the first hook: what was before is old
		return t.writeNote(note{Told: rec.Last.At})
	}
	events := eventsSince(n, running, rec)
	if len(events) == 0 {
		return nil
	}
	about := hook.About{To: running}
	if n.Announced != nil {
		about = n.Announced.About
	} else if rec.Last != nil {
		about = hook.About{From: rec.Switch.From, To: rec.Last.Target, Version: rec.Switch.Version}
	}
	for _, e := range events {
		if e != hook.Good && rec.Last != nil {
			about.Reason = rec.Last.Reason
		}
		if err := t.tell(ctx, e, about); err != nil {
			return err
		}
	}
	n.Announced = nil
	if rec.Last != nil {
		n.Told = rec.Last.At
	}
	return t.writeNote(n)
}

// eventsSince returns what the hooks have not heard of: how the last switch ended.
func eventsSince(n note, running string, rec *record.Record) []hook.Event {
	last, a := rec.Last, n.Announced
	switch {
	case a != nil && (last == nil || last.At.Equal(a.Before)): // no switch has ended since
		if a.To == running && a.From == running && isProved(running, rec) { // userspace was restarted in the same root
			return []hook.Event{hook.Good}
		}
		return []hook.Event{hook.CalledOff}
	case last == nil, a == nil && last.At.Equal(n.Told):
		return nil
	}
	switch last.Outcome {
	case level.Switched:
		switch {
		case running != last.Target && a != nil: // a full reboot resumed an older root
			return []hook.Event{hook.RolledBack}
		case running != last.Target || !isProved(running, rec):
			return nil
		case rec.Switch.Verb == record.VerbRollback:
			return []hook.Event{hook.RolledBack}
		}
		return []hook.Event{hook.Good}
	case level.Unhealthy:
		if running == last.Target {
			return []hook.Event{hook.Bad}
		}
		return []hook.Event{hook.Bad, hook.RolledBack}
	case level.RolledBack:
		return []hook.Event{hook.RolledBack}
	}
	if n.Announced != nil { // the new root never ran
		return []hook.Event{hook.CalledOff}
	}
	return nil
}

// isProved reports whether the running root is good, or a volatile one that is healthy.
func isProved(running string, rec *record.Record) bool {
	return rec.LastGood() == running || rec.Healthy == running
}

// slotOutcome returns how the switch ended for which a slot was taken.
func slotOutcome(slot *fleetlock.Slot, running string, rec *record.Record) fleetlock.Outcome {
	o := fleetlock.Outcome{State: fleetlock.CalledOff, Root: running}
	switch {
	case slot == nil:
	case running == slot.Target && isProved(running, rec):
		o.State = fleetlock.IsGood
	case running == slot.Target, rec.Last != nil && rec.Last.Target == slot.Target && !rec.Last.At.Equal(slot.Before):
		o.State = fleetlock.Failed
	}
	return o
}
