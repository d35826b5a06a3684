package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Event is one line of the audit trail, /var/lib/updatectl/history.jsonl.
type Event struct {
	At time.Time `json:"at"`
	// Event is staged, switching, good, bad, failed, rolled back, unhealthy, collected, downgrade, live patch effective …
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
		err = s.withReserve(func() error { return appendLine(s.Path(historyFile), line) })
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

// appendLine begins a line of its own also where a full disk or a crash cut the last one short.
func appendLine(file string, line []byte) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	last := []byte{'\n'}
	if end, err := f.Seek(-1, io.SeekEnd); err == nil { // not of an empty file
		_, _ = f.ReadAt(last, end) // what cannot be read is taken for whole
	}
	if last[0] != '\n' {
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Sync(), f.Close())
}

// maxEvent bounds a line. An image's os-release can bring a version of 64 KiB, which must not end the audit trail.
const maxEvent = 1 << 20

// History reads the audit trail, the oldest event first. A line that a crash cut short is passed over.
func (s *Store) History() ([]Event, error) {
	f, err := os.Open(s.Path(historyFile))
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
