package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// The events.
const (
	EventStaged        = "staged"               // an image was written to the disk as a root
	EventDowngrade     = "downgrade"            // an older version was accepted, as the operator allowed
	EventSwitching     = "switching"            // the host was asked to move to another root
	EventLanded        = "landed"               // a full reboot landed on the host root, the first half of a full switch
	EventGood          = "good"                 // a root became good
	EventHealthy       = "healthy"              // a volatile root was found to be healthy
	EventBad           = "bad"                  // a root was given up
	EventFailed        = "failed"               // a switch ended before its root ran
	EventUnhealthy     = "unhealthy"            // a root did not become good
	EventRolledBack    = "rolled back"          // the operator rolled back from a root that was being tried
	EventRestarting    = "restarting"           // userspace was restarted in the same root
	EventRefused       = "refused"              // what is published was not accepted
	EventCollected     = "collected"            // gc removed a root
	EventLiveEffective = "live patch effective" // a live patch became effective
	EventLiveFailed    = "live patch failed"    // a live patch could not be loaded
	EventLiveHeld      = "live patch held"      // a live patch is no longer loaded automatically
	EventLiveReplaced  = "live patch replaced"  // the kernel switched a live patch off for a newer one
	EventLiveReverted  = "live patch reverted"  // the operator unloaded a live patch
)

// Event is one line of the audit trail, /var/lib/updatectl/history.jsonl.
type Event struct {
	At time.Time `json:"at"`
	// Event is one of the events above.
	Event string `json:"event"`
	// Verb is the verb of the switch: apply, rollback, resume or back.
	Verb    string `json:"verb,omitempty"`
	Root    string `json:"root,omitempty"`
	From    string `json:"from,omitempty"`
	Version string `json:"version,omitempty"`
	// Sequence is the sequence of the release, 0 for an image on its own.
	Sequence int64  `json:"sequence,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Vouchers are the signers whose signatures were accepted.
	Vouchers  []verify.Voucher `json:"vouchers,omitempty"`
	Kernel    string           `json:"kernel,omitempty"`
	LivePatch string           `json:"live_patch,omitempty"` // the name of the one that the event is about, "" for none
	Volatile  bool             `json:"volatile,omitempty"`   // the switch is to a throw-away copy of the state
}

// AppendEvent appends an event to the audit trail, dated now if it has no time. A failure is only logged and never
// fails a switch: the record decides, the history is for people.
func (s *Store) AppendEvent(e Event) {
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

// Event returns an event about the target of a switch.
func (s *Switch) Event(name, reason string) Event {
	return Event{Event: name, Verb: s.Verb, Root: s.Target, From: s.From, Version: s.Version, Reason: reason,
		Volatile: s.Volatile}
}

// WithKernelOf returns the event with the release of the kernel that it happened on.
func (e Event) WithKernelOf(f facts.Facts) Event {
	e.Kernel = f.KernelRelease
	return e
}

// maxEvent bounds a line, in bytes. A version from an image's os-release can take 64 KiB, and one such line must not
// make the rest of the audit trail unreadable.
const maxEvent = 1 << 20

// History returns the events of the audit trail, the oldest first, and none if there is no audit trail yet. It skips
// lines that a crash cut short, and those that are too long for an event.
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
	lines := bufio.NewReaderSize(f, maxEvent)
	for {
		line, more, err := lines.ReadLine()
		for more && err == nil { // it is too long
			line = nil
			_, more, err = lines.ReadLine()
		}
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the history: %w", err)
		}
		var e Event
		if json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
	}
}
