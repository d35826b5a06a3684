package record

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Refused is when and why what is published was not accepted, or could not be fetched.
type Refused struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// refusedFile keeps the last Refused. It is not in the record: whoever serves a wrong image changes nothing there.
const refusedFile = StateDir + "/refused.json"

// maxRefused bounds that file, and maxReason a reason in it, in bytes.
const maxRefused, maxReason = 64 << 10, 1000

// Refused returns why the last attempt to take what is published failed, nil when it did not or nobody knows.
func (s *Store) Refused() *Refused {
	text, err := s.Disk.ReadFile(s.Path(refusedFile), maxRefused)
	r := &Refused{}
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.Log.Warn("cannot read why the published image was not taken", zap.Error(err))
		}
		return nil
	}
	return r
}

// NoteRefusal keeps why what is published is not taken; failed is nil when it is. With event, a new reason is an event
// of the history, too, and it reports that. A failure is only logged: people read this, and nothing depends on it.
func (s *Store) NoteRefusal(failed error, event bool) (isNew bool) {
	before := s.Refused()
	if failed == nil && before == nil {
		return false
	}
	if failed == nil {
		if err := s.Disk.RemoveAll(s.Path(refusedFile)); err != nil {
			s.Log.Warn("cannot remove why an earlier image was not taken", zap.Error(err))
		}
		return false
	}
	reason := failed.Error()
	r := Refused{At: s.Now().UTC(), Reason: strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")}
	if isNew = event && (before == nil || before.Reason != r.Reason); isNew {
		s.AppendEvent(Event{Event: EventRefused, Reason: r.Reason})
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = s.Disk.WriteFile(s.Path(refusedFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		s.Log.Warn("cannot keep why the published image is not taken", zap.Error(err))
	}
	return isNew
}
