package record

import (
	"bytes"
	"cmp"
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

// Store keeps the record, the history and the disk space reserved for both.
type Store struct {
	Disk durable.Disk // holds the files
	// Path returns the path of a file of the host as this process sees it.
	Path func(string) string
	// Log takes the failures that do not fail a command.
	Log *zap.Logger
	Now func() time.Time // the wall clock
}

var (
	// ErrBlocked: not now; the same call may succeed later, or after the operator acts.
	ErrBlocked = errors.New("blocked for now")
	// ErrBusy: another updatectl holds the lock; it is ErrBlocked, too.
	ErrBusy = fmt.Errorf("%w: another updatectl is at work", ErrBlocked)
	// ErrGivenUp: the image failed here before; it is ErrBlocked, too, although no time ends that.
	ErrGivenUp error = givenUp{}
	// ErrUnhealthy: the new root did not become good. The host rolled back if there is a root to roll back to.
	ErrUnhealthy = errors.New("the new root was not healthy")
)

// givenUp is an ErrBlocked in other words.
type givenUp struct{}

func (givenUp) Error() string { return "this image was given up" }
func (givenUp) Unwrap() error { return ErrBlocked }

// The files of the agent that outlive a boot, as the host sees them.
const (
	StateDir    = "/var/lib/updatectl"
	RecordFile  = StateDir + "/state.json"
	historyFile = StateDir + "/history.jsonl"
	reserveFile = StateDir + "/spare"
)

var (
	// ErrLost means that an image root runs, and there is no record of how the host came into it.
	ErrLost = errors.New("the record of this host is gone, although an image root runs")
	// ErrUnmounted means that there is no record because the file system that it is on is not mounted.
	ErrUnmounted = errors.New("the record of this host cannot be read")
	// ErrDamaged means that the record is there and cannot be understood.
	ErrDamaged = errors.New("it is damaged")
)

// IsThere reports whether there is a record: a new host has none.
func (s *Store) IsThere() bool { return s.Disk.Exists(s.Path(RecordFile)) }

// maxRecord bounds the record, in bytes. A real one has a few kilobytes: names and dates.
const maxRecord = 4 << 20

// Read returns the record. If there is none yet, it returns that of a new host, whose only good root is the host root.
// The error is an ErrDamaged for a record that is no JSON or names no good root.
func (s *Store) Read() (*Record, error) {
	r := &Record{
		Schema: recordSchema, Phase: PhaseIdle, Good: []string{switcher.HostRoot},
		Bad: map[string]Bad{}, Accepted: map[string]release.Mark{}, Attempts: map[string]int{}, Failed: map[string]Failed{},
	}
	file := s.Path(RecordFile)
	text, err := s.Disk.ReadFile(file, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the record: %w", err)
	}
	if err := parseRecord(text, r); err != nil {
		return nil, fmt.Errorf("cannot read the record %s: %w: %w", file, ErrDamaged, err)
	}
	return r, nil
}

// parseRecord reads a record into r, and keeps fields that only a newer agent knows as they are.
func parseRecord(text []byte, r *Record) error {
	if string(bytes.TrimSpace(text)) == "null" { // which leaves r as it is
		return errors.New("it is empty")
	}
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
	r.Phase = cmp.Or(r.Phase, PhaseIdle)
	if r.Switch == nil && r.Moving() { // also in a phase of a newer agent
		return fmt.Errorf("its phase is %s, but it names no switch", r.Phase)
	}
	return nil
}

// Write replaces the record. When it returns nil, the record survives a power cut; after an error, the old record may
// still be there.
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
