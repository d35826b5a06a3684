// Package event names what a journal watcher waits for. It promises that an identity stays with its event: an entry of
// the journal has it as MESSAGE_ID, whatever the sentence says in this version.
//
// docs/events.md says when each one happens, and configs/catalog has the explanation that `journalctl -x` prints.
package event

import (
	"fmt"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Event is something that happened to this host.
type Event int

// The events.
const (
	Staged             Event = iota // an image is on the disk as a root
	Switching                       // the host was asked to move to another root
	Good                            // the host arrived, and the root is good
	Resumed                         // after a full reboot, the host is in its last good root again, which is good
	RolledBack                      // the host is back in a root that ran before, which is good
	Unhealthy                       // a root did not become good
	SwitchFailed                    // a switch ended before its root ran, or before it was good
	FullReboot                      // a full reboot follows, because there is no other way back
	NotResumed                      // after a full reboot, the host stays on its host root although it has a good root
	Waiting                         // an unattended run does not go on now
	Refused                         // what is published is not accepted, for a new reason
	SlotKept                        // after a failure, the host keeps its slot of the lock server
	FullRebootDue                   // a full reboot is due soon because of the age of the kernel
	LivePatchEffective              // a live patch was loaded and is effective
	LivePatchFailed                 // a live patch is not effective
	LivePatchHeld                   // a live patch is no longer loaded automatically: the host went down with it
	events
)

// known has the name and the identity of each event, made with `systemd-id128 new`, and how severe it is at least.
var known = [events]struct {
	name, id string
	level    zapcore.Level
}{
	Staged:             {"staged", "45de0d2c3c20436a9d462fad17fcfc0f", zap.InfoLevel},
	Switching:          {"switching", "8ea018daab8d41f693074a125a2afcba", zap.InfoLevel},
	Good:               {"good", "419e027391da4ee3a06785de20d3a052", zap.InfoLevel},
	Resumed:            {"resumed", "bd3eba1dbaec47088968239f3d1868e0", zap.InfoLevel},
	RolledBack:         {"rolled-back", "76688c5af4e44a6aa10dcf6560d6a42b", zap.WarnLevel},
	Unhealthy:          {"unhealthy", "4f1eb634a571435b9d1e05d8fbe7ce8f", zap.ErrorLevel},
	SwitchFailed:       {"switch-failed", "3a65bc842f934a20833cf4be1ce48a25", zap.ErrorLevel},
	FullReboot:         {"full-reboot", "d93487401f5b4df6b5fda9bd6f90cbf4", zap.ErrorLevel},
	NotResumed:         {"not-resumed", "6ced00a6a1494c75b7bc8d0f8b44f1ce", zap.ErrorLevel},
	Waiting:            {"waiting", "172f095490da446dbac8211f0cd29f6d", zap.InfoLevel},
	Refused:            {"refused", "ad075a35c64d42d7a9aee624e7c289c6", zap.WarnLevel},
	SlotKept:           {"slot-kept", "f7ca0c2dbb27476095a4da21ccbe5423", zap.WarnLevel},
	FullRebootDue:      {"full-reboot-due", "09145198c4ba46c5b6f9b2a08f9f41cc", zap.WarnLevel},
	LivePatchEffective: {"live-patch-effective", "a52a414b2b704c91983c7d8a6852d8bd", zap.InfoLevel},
	LivePatchFailed:    {"live-patch-failed", "9d274dcaf9cf49d6872aca97e802628c", zap.WarnLevel},
	LivePatchHeld:      {"live-patch-held", "8e47019522cd467caedab417b231c74e", zap.ErrorLevel},
}

// String returns the name of an event, as in UPDATECTL_EVENT=.
func (e Event) String() string {
	if e < 0 || e >= events {
		return fmt.Sprintf("event %d", int(e))
	}
	return known[e].name
}

// ID returns the identity of an event, as in MESSAGE_ID=: 32 hexadecimal digits.
func (e Event) ID() string { return known[e].id }

// Level returns how severe an event is at least. Some are logged as information, because the command also ends with
// them as its error; in the journal, they have the higher of the two levels.
func (e Event) Level() zapcore.Level { return known[e].level }

// key is the field of a log entry with its event.
const key = "event"

// Field returns the field that makes a log entry the one of an event.
func (e Event) Field() zap.Field { return zap.Reflect(key, e) }

// FieldName returns the name of a field of a log entry in the journal, such as UPDATECTL_LIVE_PATCH for "live patch".
func FieldName(key string) string {
	return "UPDATECTL_" + strings.ToUpper(strings.ReplaceAll(key, " ", "_"))
}

// Of returns the event of a log entry with these fields, and whether it has one.
func Of(fields map[string]any) (Event, bool) {
	e, is := fields[key].(Event)
	return e, is
}
