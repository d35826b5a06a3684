package fleetlock

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/updatectl/updatectl/durable"
)

// Want is what a host wants from the server.
type Want string

// The wants.
const (
	Held     Want = "held"      // the slot, until the switch is over
	GiveBack Want = "give-back" // to give it back; the server may not have heard of it yet
)

// Slot is the note of a host that asks for a slot or holds one. It is written before the server is asked, and removed
// when the server has taken the slot back.
type Slot struct {
	URL   string `json:"url"`
	Group string `json:"group"`
	ID    string `json:"id"`
	// Target is the root that is switched to, Version that of its image.
	Target  string `json:"target"`
	Version string `json:"version,omitempty"`
	// Since is when the host first asked for the slot.
	Since time.Time `json:"since"`
	Wants Want      `json:"wants"`
	// Before is when the previous switch ended, zero for none: a result with another time is that of this switch.
	Before time.Time `json:"before,omitzero"`
	// Failed is why the slot is kept although no switch is going on: a switch failed.
	Failed string `json:"failed,omitempty"`
}

// Client returns the client of the server that the slot is of, whatever is configured today.
func (s Slot) Client() Client { return Client{URL: s.URL, Group: s.Group, ID: s.ID} }

// ErrOther means that the host may hold a slot of another server or group than the one to ask now.
var ErrOther = errors.New("the host may hold another slot")

// For returns the note for a switch that asks a server for a slot. old is the note that is on the disk, nil for none:
// a slot that is held already stays the same, with the failure for which it was kept. An old slot of another server,
// group or id is an [ErrOther].
func For(old *Slot, c Client, target, version string, now time.Time) (Slot, error) {
	s := Slot{URL: c.URL, Group: c.Group, ID: c.ID, Target: target, Version: version, Since: now.UTC(), Wants: Held}
	if old == nil {
		return s, nil
	}
	if strings.TrimRight(old.URL, "/") != strings.TrimRight(s.URL, "/") || old.Group != s.Group || old.ID != s.ID {
		return Slot{}, fmt.Errorf("%w, of the group %s at %s: give that one back first, or remove %s if that server is gone",
			ErrOther, old.Group, old.Client().host(), file)
	}
	s.Since, s.Failed = old.Since, old.Failed
	return s, nil
}

// State is how far the switch is for which a slot was taken.
type State string

// The states.
const (
	Trying    State = "trying"     // it is going on: before the switch, or the new root is being tried
	IsGood    State = "good"       // the root that runs is good, and no switch is going on
	Failed    State = "failed"     // the switch ended in another root than its target, or in a bad one
	CalledOff State = "called off" // it ended before anything was switched
)

// Outcome is the state of the switch, and the root that runs.
type Outcome struct {
	State State
	Root  string
}

// Action is what the host does with its slot.
type Action string

// The actions.
const (
	DoNothing  Action = "nothing"   // there is no slot
	DoGiveBack Action = "give back" // ask the server until it agrees, then remove the note
	DoKeep     Action = "keep"      // note the failure and tell people: no other host may follow
	DoWait     Action = "wait"      // the switch is still going on
)

// Next returns what a host does with a slot, nil for none.
//
//   - The target is good: give it back.
//   - The switch failed: keep it, so that the fleet stops, until an operator gives it back or a later switch succeeds.
//   - The switch was called off: give it back, unless it was kept for an earlier failure.
//   - The switch is going on: wait.
//   - The slot is to be given back already: do so.
func Next(s *Slot, o Outcome) Action {
	switch {
	case s == nil:
		return DoNothing
	case s.Wants == GiveBack:
		return DoGiveBack
	case o.State == Trying:
		return DoWait
	case o.State == IsGood && o.Root == s.Target:
		return DoGiveBack
	case o.State == CalledOff && s.Failed == "":
		return DoGiveBack
	}
	return DoKeep
}

// file is the name of the note in the directory of the state.
const file = "fleetlock.json"

// maxSlot bounds the note, in bytes. A real one has a few hundred.
const maxSlot = 64 << 10

// ErrDamaged means that there is a note that cannot be understood. The host may hold a slot.
var ErrDamaged = errors.New("it is damaged")

// Read returns the note in a directory, nil if there is none. A note that cannot be understood is an [ErrDamaged]; a
// host that asks the server again for the same group gets the same slot.
func Read(disk durable.Disk, dir string) (*Slot, error) {
	name := filepath.Join(dir, file)
	text, err := disk.ReadFile(name, maxSlot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, durable.ErrTooLarge) {
		return nil, fmt.Errorf("cannot read which FleetLock slot the host holds: %w", err)
	}
	var s Slot
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w: %w; the host may hold a slot: look at the server, "+
			"release it there as docs/fleetlock.md says, and remove the file", name, ErrDamaged, err)
	}
	return &s, nil
}

// check returns what a note lacks.
func (s Slot) check() error {
	if err := s.Client().Validate(); err != nil {
		return err
	}
	if s.Target == "" {
		return errors.New("it names no root")
	}
	if s.Wants != Held && s.Wants != GiveBack {
		return fmt.Errorf("it wants %.40q", string(s.Wants))
	}
	return nil
}

// Write writes the note into a directory. When it returns nil, the note survives a power cut.
func Write(disk durable.Disk, dir string, s Slot) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("cannot note the FleetLock slot: %w", err)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	// The URL may have a password in it.
	if err := disk.WriteFile(filepath.Join(dir, file), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot note the FleetLock slot: %w", err)
	}
	return nil
}

// Remove removes the note, once the server has taken the slot back. A missing note is no error. After a power cut, the
// note may be there again, and to give the slot back again is harmless.
func Remove(disk durable.Disk, dir string) error {
	if err := disk.Remove(filepath.Join(dir, file)); err != nil {
		return fmt.Errorf("cannot remove the note of the FleetLock slot: %w", err)
	}
	return nil
}
