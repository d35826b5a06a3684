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
	// ErrSwitch means that the host did not arrive in the root that it was sent to.
	ErrSwitch = errors.New("the switch failed")
	// ErrFullRebootFollows means that the host rolls back by a full reboot.
	ErrFullRebootFollows = errors.New("cannot roll back by a soft reboot, so a full reboot follows")
)

const (
	// StampFile holds the stamp that the arming step leaves.
	StampFile = switcher.RunDir + "/armed.json"
	// GuardNoteFile holds the GuardNote of a guard that rolls back.
	GuardNoteFile = switcher.RunDir + "/back.json"
	// VerdictFile holds why confirm wants to leave the running root.
	VerdictFile = switcher.RunDir + "/verdict.json"
	// startedFile exists once userspace was started since the last full reboot.
	startedFile = switcher.RunDir + "/started"
)

// Notes are the files that the commands and the guard leave for each other in /run, because the record may be
// unwritable.
type Notes struct{ *host.Host }

// RemoveStamp removes the stamp of an earlier switch.
func (ns *Notes) RemoveStamp() error { return ns.removeNote(StampFile) }

// removeNote removes a file of an earlier switch from /run.
func (ns *Notes) removeNote(file string) error {
	if err := ns.Machine.Disk.Remove(ns.Path(file)); err != nil {
		return fmt.Errorf("cannot clean up after an earlier switch: %w", err)
	}
	return nil
}

// WriteStamp writes the stamp of the present switch.
func (ns *Notes) WriteStamp(s level.Stamp) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = ns.Machine.Disk.WriteFile(ns.Path(StampFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write the stamp of the switch: %w", err)
	}
	return nil
}

// maxNote bounds a file read from /run, in bytes: a switch and its reasons.
const maxNote = 4 << 20

// ReadStamp returns the stamp that the arming step left, nil when there is none or it cannot be read.
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

// verdict is why confirm wants to leave the running root. It lies in /run, so that the guard can report the reason
// when it acts instead of confirm.
type verdict struct {
	Root string `json:"root"`
	record.Departure
	At time.Time `json:"at"`
}

// LeaveVerdict writes a verdict about a root for the guard, and reports whether it could. A failure is logged.
func (ns *Notes) LeaveVerdict(root string, d record.Departure) bool {
	text, err := json.Marshal(verdict{Root: root, Departure: d, At: ns.Now().UTC()})
	if err == nil {
		err = ns.Machine.Disk.MkdirAll(ns.Path(switcher.RunDir), 0o700)
	}
	if err == nil {
		err = ns.Machine.Disk.WriteFile(ns.Path(VerdictFile), text, 0o600)
	}
	if err != nil {
		ns.Log.Warn("cannot write the verdict for the guard", zap.Error(err))
	}
	return err == nil
}

// ReadVerdict returns why confirm wants to leave a root; its reason is "" when confirm does not.
func (ns *Notes) ReadVerdict(root string) record.Departure {
	var v verdict
	text, err := ns.Machine.Disk.ReadFile(ns.Path(VerdictFile), maxNote)
	if err != nil || json.Unmarshal(text, &v) != nil || v.Root != root {
		return record.Departure{}
	}
	return v.Departure
}
