package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"go.uber.org/zap"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
)

// Store keeps the record, the history and the room reserved for both on the disk of one host.
type Store struct {
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

func (s *Store) Read() (*Record, error) {
	r := &Record{Schema: recordSchema, Phase: PhaseIdle, Good: []string{switcher.HostRoot}, Bad: map[string]Bad{}, Accepted: map[string]release.Mark{}, Attempts: map[string]int{}, Failed: map[string]Failed{}}
	file := s.Path(RecordFile)
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil && st.Size() > maxRecord {
		err = fmt.Errorf("it is larger than %d bytes", maxRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the record: %w", err)
	}
	text, err := os.ReadFile(file)
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

func (s *Store) Write(r *Record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = WriteAtomically(s.Path(RecordFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write the record: %w", err)
	}
	return nil
}

// WriteAtomically replaces a file so that a crash leaves the old or the new content, never a part.
func WriteAtomically(file string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
