// Package pause answers whether an operator wants this host to stay in its root. It promises that a pause which cannot
// be read counts, and that none of it stands in the way of a rollback.
package pause

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
)

// Pause is the wish of an operator that the host stays in its root.
type Pause struct {
	At time.Time `json:"at"`
	// Until is when it ends, the zero time for never.
	Until time.Time `json:"until,omitzero"`
	// Reason and By are for people; both may be empty.
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
}

// ErrPaused means that an operator paused updates. It wraps [record.ErrBlocked].
var ErrPaused = fmt.Errorf("%w: updates are paused", record.ErrBlocked)

// The events of the history.
const (
	EventPaused   = "paused"   // an operator paused updates
	EventUnpaused = "unpaused" // an operator ended the pause
)

const (
	file    = record.StateDir + "/pause.json"
	maxFile = 64 << 10
	// MaxReason bounds the reason of a pause, in bytes.
	MaxReason = 1000
)

// Set pauses updates from now on.
func Set(h *host.Host, p Pause) (Pause, error) {
	p.At = h.Now().UTC()
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return p, err
	}
	if err := h.Machine.Disk.WriteFile(h.Path(file), append(text, '\n'), 0o600); err != nil {
		return p, fmt.Errorf("cannot keep the pause: %w", err)
	}
	h.Records.AppendEvent(record.Event{Event: EventPaused, Reason: p.Reason})
	return p, nil
}

// Lift ends a pause. It returns the pause that was, nil when there was none.
func Lift(h *host.Host) (*Pause, error) {
	was := Current(h)
	if err := h.Machine.Disk.Remove(h.Path(file)); err != nil {
		return nil, fmt.Errorf("cannot end the pause: %w", err)
	}
	if was != nil {
		h.Records.AppendEvent(record.Event{Event: EventUnpaused, Reason: was.Reason})
	}
	return was, nil
}

// Current returns the pause that holds now, nil when there is none. One that cannot be read holds until it is ended.
func Current(h *host.Host) *Pause {
	text, err := h.Machine.Disk.ReadFile(h.Path(file), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p := &Pause{}
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err != nil {
		return &Pause{Reason: fmt.Sprintf("the pause cannot be read: %v", err)}
	}
	if p.Over(h.Now()) {
		return nil
	}
	return p
}

// Over reports whether the pause has ended.
func (p Pause) Over(now time.Time) bool { return !p.Until.IsZero() && !now.Before(p.Until) }

// Err returns the pause as an [ErrPaused].
func (p Pause) Err() error {
	text := ""
	if p.By != "" {
		text += " by " + p.By
	}
	if !p.Until.IsZero() {
		text += " until " + p.Until.Local().Format("2006-01-02 15:04 MST")
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return fmt.Errorf("%w%s", ErrPaused, text)
}
