package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/durable"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
)

// Store keeps the record, the history and the room reserved for both on the disk of one host.
type Store struct {
	// Disk is where they lie.
	Disk durable.Disk
	// Path returns where a file of the host lies for this process.
	Path func(string) string
	// Log takes what does not fail a command.
	Log *zap.Logger
	// Now is the wall clock.
	Now func() time.Time
}

var (
	// ErrBlocked: not now; the same call may go through later or after somebody acted.
	ErrBlocked = errors.New("blocked for now")
	// ErrBusy: another updatectl holds the lock; it is ErrBlocked, too.
	ErrBusy = fmt.Errorf("%w: another updatectl is at work", ErrBlocked)
	// ErrGivenUp: the image failed here before; it is ErrBlocked, too.
	ErrGivenUp = fmt.Errorf("%w: this image was given up", ErrBlocked)
	// ErrUnhealthy: the root that the host was sent to did not become good, and the host went back by itself.
	ErrUnhealthy = errors.New("the new root was not healthy")
)

const (
	StateDir    = "/var/lib/updatectl"
	RecordFile  = StateDir + "/state.json"
	historyFile = StateDir + "/history.jsonl"
	reserveFile = StateDir + "/spare"
)

// maxRecord bounds the record; it holds a few names and dates.
const maxRecord = 4 << 20

// Read returns the record, the one of a host on which nothing has happened yet when there is none.
func (s *Store) Read() (*Record, error) {
	r := &Record{Schema: recordSchema, Phase: PhaseIdle, Good: []string{switcher.HostRoot}, Bad: map[string]Bad{}, Accepted: map[string]release.Mark{}, Attempts: map[string]int{}, Failed: map[string]Failed{}}
	file := s.Path(RecordFile)
	text, err := s.Disk.ReadFile(file, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the record: %w", err)
	}
	if err := parseRecord(text, r); err != nil {
		return nil, fmt.Errorf("cannot read the record %s: %w", file, err)
	}
	return r, nil
}

// parseRecord reads a record; fields that a newer agent added are kept as they are.
func parseRecord(text []byte, r *Record) error {
	if err := json.Unmarshal(text, r); err != nil {
		return err
	}
	if len(r.Good) == 0 {
		return errors.New("it names no good root")
	}
	if r.Bad == nil {
		r.Bad = map[string]Bad{}
	}
	for root, b := range r.Bad {
		b.RolledBack = b.RolledBack || b.Reason == RolledBack
		r.Bad[root] = b
	}
	if r.Accepted == nil {
		r.Accepted = map[string]release.Mark{}
	}
	if r.Attempts == nil {
		r.Attempts = map[string]int{}
	}
	if r.Failed == nil {
		r.Failed = map[string]Failed{}
	}
	if r.Switch == nil && (r.Phase == PhaseArmed || r.Phase == PhaseTrying) {
		return fmt.Errorf("it is in phase %s and names no switch", r.Phase)
	}
	return nil
}

// Write replaces the record; when it returns nil, the record is on the disk.
func (s *Store) Write(r *Record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = s.Disk.WriteFile(s.Path(RecordFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write the record: %w", err)
	}
	return nil
}
