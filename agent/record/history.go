package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// The events.
const (
	EventStaged        = "staged"               // an image was brought onto the disk
	EventDowngrade     = "downgrade"            // an older version was taken, as the operator allowed
	EventSwitching     = "switching"            // the host was asked to move to another root
	EventLanded        = "landed"               // a full reboot landed on the host root, from where the host goes on
	EventGood          = "good"                 // a root became good
	EventBad           = "bad"                  // a root was given up
	EventFailed        = "failed"               // a switch ended before its root ran
	EventUnhealthy     = "unhealthy"            // a root did not become good
	EventRolledBack    = "rolled back"          // the operator left a root that was being tried
	EventRestarting    = "restarting"           // userspace was restarted in the same root
	EventCollected     = "collected"            // something that nothing needs was removed
	EventLiveEffective = "live patch effective" // a live patch became effective
	EventLiveFailed    = "live patch failed"    // a live patch could not be loaded
	EventLiveHeld      = "live patch held"      // a live patch is no longer loaded automatically
	EventLiveReplaced  = "live patch replaced"  // the kernel switched a live patch off for a newer one
	EventLiveReverted  = "live patch reverted"  // the operator took a live patch out
)

// Event is one line of the audit trail, /var/lib/updatectl/history.jsonl.
type Event struct {
	At time.Time `json:"at"`
	// Event is one of the events above.
	Event string `json:"event"`
	// Verb is that of the switch: apply, rollback, resume or back.
	Verb    string `json:"verb,omitempty"`
	Root    string `json:"root,omitempty"`
	From    string `json:"from,omitempty"`
	Version string `json:"version,omitempty"`
	// Sequence is that of the release, 0 for an image on its own.
	Sequence int64  `json:"sequence,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Vouchers are the signers whose signatures were accepted.
	Vouchers []verify.Voucher `json:"vouchers,omitempty"`
	Kernel   string           `json:"kernel,omitempty"`
	// LivePatch is the name of one that this is about.
	LivePatch string `json:"live_patch,omitempty"`
}

// Tell appends to the audit trail; an event without a time is one of now. It never fails a switch: the record decides, this
// is for people.
func (s *Store) Tell(e Event) {
	if e.At.IsZero() {
		e.At = s.Now().UTC()
	}
	line, err := json.Marshal(e)
	if err == nil {
		err = s.withReserve(func() error { return s.Disk.AppendLine(s.Path(historyFile), line) })
	}
	if err != nil {
		s.Log.Warn("cannot write the history", zap.Error(err))
	}
}

// Event makes an event of a switch, about its target.
func (s *Switch) Event(name, reason string) Event {
	return Event{Event: name, Verb: s.Verb, Root: s.Target, From: s.From, Version: s.Version, Reason: reason}
}

// WithKernelOf adds the host on which it happened.
func (e Event) WithKernelOf(f facts.Facts) Event {
	e.Kernel = f.KernelRelease
	return e
}

// maxEvent bounds a line. An image's os-release can bring a version of 64 KiB, which must not end the audit trail.
const maxEvent = 1 << 20

// History reads the audit trail, the oldest event first. A line that a crash cut short is passed over.
func (s *Store) History() ([]Event, error) {
	f, err := s.Disk.Open(s.Path(historyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return []Event{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	defer f.Close()
	events := []Event{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			events = append(events, e)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	return events, nil
}
