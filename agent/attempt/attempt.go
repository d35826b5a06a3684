// Package attempt answers what the last unattended run did, and what it waits for. It promises nothing: people and
// monitoring read it, and no decision depends on it but when to ask the source again.
package attempt

import (
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// Attempt is how the last unattended run ended.
type Attempt struct {
	At time.Time `json:"at"`
	// Reason is what kept it from going on, one word of docs/exit-codes.md; "" when nothing did.
	Reason string `json:"reason,omitempty"`
	// Text says the same for people.
	Text string `json:"text,omitempty"`
	// Until is when it goes on at the earliest, the zero time when that is not known.
	Until time.Time `json:"until,omitzero"`
	// Checked is when the source last answered, Staged which root was staged then, and Level how the host would get into
	// it; "" when that is not known.
	Checked time.Time   `json:"checked,omitzero"`
	Staged  string      `json:"staged,omitempty"`
	Level   level.Level `json:"level,omitempty"`
}

const (
	file    = record.StateDir + "/attempt.json"
	maxFile = 64 << 10
)

// Last returns the last attempt, nil if there was none or if it cannot be read.
func Last(h *host.Host) *Attempt {
	text, err := h.Machine.Disk.ReadFile(h.Path(file), maxFile)
	a := &Attempt{}
	if err == nil {
		err = json.Unmarshal(text, a)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.Log.Warn("cannot read how the last unattended run ended", zap.Error(err))
		}
		return nil
	}
	return a
}

// Keep keeps an attempt. One that did not ask the source has what the last one found that did.
func Keep(h *host.Host, a Attempt) {
	a.At = h.Now().UTC()
	if before := Last(h); a.Checked.IsZero() && before != nil {
		a.Checked, a.Staged, a.Level = before.Checked, before.Staged, before.Level
	}
	text, err := json.MarshalIndent(a, "", "  ")
	if err == nil {
		err = h.Machine.Disk.WriteFile(h.Path(file), append(text, '\n'), 0o600)
	}
	if err != nil {
		h.Log.Warn("cannot keep how this unattended run ended", zap.Error(err))
	}
}
