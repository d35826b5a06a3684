package record

import (
	"errors"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// reserveSize is room, in bytes, for what a rollback has to write: the record, the history and a health report. It is
// given up in parts of reservePart bytes, because other processes take whatever is free. Its inode is given up last.
const (
	reserveSize = 256 << 10
	reservePart = 32 << 10
)

// Reserve keeps room on the disk for a rollback, as a file that is given up when the disk is full: a root that fills
// /var must not keep the next one from recording that. A failure is only logged, because a full disk is no reason to
// stay.
func (s *Store) Reserve() {
	if err := s.Disk.Reserve(s.Path(reserveFile), reserveSize); err != nil {
		s.Log.Warn("cannot reserve disk space for a rollback", zap.Error(err))
	}
}

// NoRoom reports whether an error says that the disk is full, over quota or read-only.
func NoRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// WriteOutcome is [Store.Write] for the outcome of a switch and for a rollback: if the disk is full, it uses the
// reserved room.
func (s *Store) WriteOutcome(rec *Record) error {
	return s.withReserve(func() error { return s.Write(rec) })
}

// withReserve calls write, and as long as the disk is full, gives up a part of the reserved room and calls it again.
// It returns the last error of write once nothing is left to give up.
func (s *Store) withReserve(write func() error) error {
	err := write()
	for errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		freed, serr := s.Disk.Shrink(s.Path(reserveFile), reservePart)
		if serr != nil || !freed {
			return errors.Join(err, serr)
		}
		s.Log.Warn("the disk is full; using the space reserved for a rollback", zap.Error(err))
		err = write()
	}
	return err
}
