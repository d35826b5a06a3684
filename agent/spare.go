package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// spareSize is room for the record, the history and a health report: what going back has to write.
const spareSize = 256 << 10

// reserve keeps room on the disk for the way back, as a file to be given up: a root that fills /var must not take from the
// next one the means to say so. Where there is no room any more, that is no reason to stay.
func (a *Agent) reserve() {
	if err := reserve(a.path(spareFile)); err != nil {
		a.Log.Warn("cannot keep room for the way back", zap.Error(err))
	}
}

func reserve(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot reserve room on the disk: %w", err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, spareSize)
	if errors.Is(err, unix.EOPNOTSUPP) { // not every file system can
		_, err = f.WriteAt(make([]byte, spareSize), 0)
	}
	if err != nil {
		return fmt.Errorf("cannot reserve room on the disk: %w", err)
	}
	return nil
}

// noRoom tells that nothing more can be written.
func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// writeOutcome writes down what became of a switch, or one that leads back: with the room that was kept, where there is no
// other.
func (a *Agent) writeOutcome(rec *Record) error {
	return a.withSpare(func() error { return a.writeRecord(rec) })
}

// withSpare does what writes to the state, and once more with the room that was kept, when there is no other.
func (a *Agent) withSpare(write func() error) error {
	err := write()
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	if gone := os.Remove(a.path(spareFile)); gone != nil {
		if errors.Is(gone, fs.ErrNotExist) {
			return err
		}
		return errors.Join(err, gone)
	}
	a.Log.Warn("the disk is full; the room that was kept for this is used", zap.Error(err))
	return write()
}
