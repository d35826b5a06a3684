package record

import (
	"errors"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// reserveSize is room for the record, the history and a health report: what going back has to write. It is given up in parts,
// because others take what is free.
const (
	reserveSize = 256 << 10
	reservePart = 32 << 10
)

// Reserve keeps room on the disk for the way back, as a file to be given up: a root that fills /var must not take from the
// next one the means to say so. Where there is no room any more, that is no reason to stay.
func (s *Store) Reserve() {
	if err := s.Disk.Reserve(s.Path(reserveFile), reserveSize); err != nil {
		s.Log.Warn("cannot keep room for the way back", zap.Error(err))
	}
}

// NoRoom tells that nothing more can be written.
func NoRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// WriteOutcome writes down what became of a switch, or one that leads back: with the room that was kept, where there is no
// other.
func (s *Store) WriteOutcome(rec *Record) error {
	return s.withReserve(func() error { return s.Write(rec) })
}

// withReserve does what writes to the state, and when there is no room for it again with as many parts of the room that was
// kept as it takes.
func (s *Store) withReserve(write func() error) error {
	err := write()
	for errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		left, serr := s.Disk.Shrink(s.Path(reserveFile), reservePart)
		if serr != nil || !left {
			return errors.Join(err, serr)
		}
		s.Log.Warn("the disk is full; the room that was kept for this is used", zap.Error(err))
		err = write()
	}
	return err
}
