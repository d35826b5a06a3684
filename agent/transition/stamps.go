package transition

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

var (
	// ErrSwitch: the host did not arrive in the root that was asked for.
	ErrSwitch = errors.New("the switch failed")
	// ErrBooted: going back by a soft reboot could not be had.
	ErrBooted = errors.New("the kernel is booted instead")
)

const (
	StampFile = switcher.RunDir + "/armed.json"
	// What confirm and the guard leave for each other where the record may not be written.
	BackFile    = switcher.RunDir + "/back.json"
	VerdictFile = switcher.RunDir + "/verdict.json"
	resumeStamp = switcher.RunDir + "/started"
)

// Notes are what the commands and the guard leave for each other in /run, where the record may be out of reach.
type Notes struct{ *host.Host }

// RemoveStamp removes the stamp of an earlier switch.
func (ns *Notes) RemoveStamp() error { return ns.removeNote(StampFile) }

// removeNote removes a file in /run that an earlier switch left.
func (ns *Notes) removeNote(file string) error {
	if err := ns.Machine.Disk.Remove(ns.Path(file)); err != nil {
		return fmt.Errorf("cannot remove what an earlier switch left: %w", err)
	}
	return nil
}

// WriteStamp leaves the stamp of the present switch.
func (ns *Notes) WriteStamp(s level.Stamp) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = ns.Machine.Disk.WriteFile(ns.Path(StampFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot leave the stamp of the switch: %w", err)
	}
	return nil
}

// maxNote bounds what is read from /run: a switch and its reasons.
const maxNote = 4 << 20

// ReadStamp returns what the arming step left; nil when it left nothing.
func (ns *Notes) ReadStamp() *level.Stamp {
	text, err := ns.Machine.Disk.ReadFile(ns.Path(StampFile), maxNote)
	if err != nil {
		return nil
	}
	var s level.Stamp
	if json.Unmarshal(text, &s) != nil {
		return nil
	}
	return &s
}

// verdict is why confirm wants to leave the running root. It lies in /run, so that the guard, which acts when confirm
// cannot, can report the reason.
type verdict struct {
	Root string `json:"root"`
	record.Departure
	At time.Time `json:"at"`
}

// LeaveVerdict leaves a verdict about a root for the guard.
func (ns *Notes) LeaveVerdict(root string, d record.Departure) {
	text, err := json.Marshal(verdict{Root: root, Departure: d, At: ns.Now().UTC()})
	if err == nil {
		err = ns.Machine.Disk.WriteFile(ns.Path(VerdictFile), text, 0o600)
	}
	if err != nil {
		ns.Log.Warn("cannot leave the verdict for the guard", zap.Error(err))
	}
}

// ReadVerdict returns why confirm wants to leave a root; the reason is "" when it does not.
func (ns *Notes) ReadVerdict(root string) record.Departure {
	var v verdict
	text, err := ns.Machine.Disk.ReadFile(ns.Path(VerdictFile), maxNote)
	if err != nil || json.Unmarshal(text, &v) != nil || v.Root != root {
		return record.Departure{}
	}
	return v.Departure
}
