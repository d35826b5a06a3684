package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// A WriteLog is what a machine wrote to its disk, in the order in which the disk completed it, as QEMU's driver
// blklogwrites logs it in the format of dm-log-writes. A disk that loses its power keeps what was written before the
// last flush; any part of what came later may be lost.
type WriteLog struct {
	Writes []Write

	file string
	size int64 // of the part of the file that was read
}

// A Write is one request that a disk has completed.
type Write struct {
	Offset, Length int64
	// Flush makes everything before it durable. It carries no data.
	Flush bool
	// Through means that the write was durable when it completed.
	Through bool
	// Discard has no data either; its range reads as zeros.
	Discard bool

	data int64 // offset in the log
}

// A PowerCut is a moment at which the power is cut.
type PowerCut struct {
	// After is how many requests the disk had completed.
	After int
	// Seed chooses which of the requests that were not flushed reached the disk all the same, because a disk may
	// reorder them; 0 is none.
	Seed uint64
}

// sector is the unit of a log: it begins with one sector of header, and every request has one before its data.
const sector = 512

// The flags of a request in the log.
const (
	flagFlush = 1 << iota
	flagThrough
	flagDiscard
	flagMark
)

// errWriteLog is returned for a file that is not, or not only, a log of writes.
var errWriteLog = errors.New("this is not a log of writes")

// ReadWriteLog reads the log of a machine, which may still be running.
func ReadWriteLog(file string) (*WriteLog, error) {
	l := &WriteLog{file: file, size: sector}
	return l, l.Follow()
}

// Follow reads what has been logged since the last call.
func (l *WriteLog) Follow() error {
	f, err := os.Open(l.file)
	if err != nil {
		return fmt.Errorf("cannot read the log of writes: %w", err)
	}
	defer f.Close()
	for {
		w, length, err := readWrite(f, l.size)
		if err != nil {
			return fmt.Errorf("cannot read the log of writes at request %d: %w", len(l.Writes), err)
		}
		if length == 0 {
			return nil
		}
		l.Writes, l.size = append(l.Writes, w), l.size+length
	}
}

// readWrite returns the request at an offset of the log, and how many bytes of the log it takes: 0 at the end of the
// log. The file is longer than the log.
func readWrite(f io.ReaderAt, at int64) (Write, int64, error) {
	var head [sector]byte
	if n, err := f.ReadAt(head[:], at); n < len(head) {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return Write{}, 0, err
	}
	first, count := binary.LittleEndian.Uint64(head[0:]), binary.LittleEndian.Uint64(head[8:])
	flags := binary.LittleEndian.Uint64(head[16:])
	const most = 1 << 40 / sector // sectors of a disk, and of a request
	if flags >= flagMark || first > most || count > most {
		return Write{}, 0, errWriteLog
	}
	w := Write{
		Offset: int64(first) * sector, Length: int64(count) * sector,
		Flush: flags&flagFlush != 0, Through: flags&flagThrough != 0, Discard: flags&flagDiscard != 0,
		data: at + sector,
	}
	switch {
	case w.Flush, w.Discard:
		return w, sector, nil
	case w.Length == 0:
		return w, 0, nil
	}
	var last [1]byte
	if n, err := f.ReadAt(last[:], w.data+w.Length-1); n == 0 { // it is still being written
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return w, 0, err
	}
	return w, sector + w.Length, nil
}

// Find returns the indices of the writes, starting at from, that begin with a text.
func (l *WriteLog) Find(from int, text string) ([]int, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the log of writes: %w", err)
	}
	defer f.Close()
	var found []int
	begin := make([]byte, len(text))
	for i, w := range l.Writes[from:] {
		if w.Flush || w.Discard || w.Length < int64(len(begin)) {
			continue
		}
		if _, err := f.ReadAt(begin, w.data); err != nil {
			return nil, fmt.Errorf("cannot read the log of writes: %w", err)
		}
		if string(begin) == text {
			found = append(found, from+i)
		}
	}
	return found, nil
}

// maxText bounds what is read of a file in the log.
const maxText = 64 << 10

// Text returns what a write wrote, up to the zeros that fill its last block.
func (l *WriteLog) Text(i int) (string, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return "", fmt.Errorf("cannot read the log of writes: %w", err)
	}
	defer f.Close()
	text := make([]byte, min(l.Writes[i].Length, maxText))
	if _, err := f.ReadAt(text, l.Writes[i].data); err != nil {
		return "", fmt.Errorf("cannot read the log of writes: %w", err)
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text), nil
}

// flushed returns how many requests are durable when the power is cut after so many.
func (l *WriteLog) flushed(after int) int {
	for i := after; i > 0; i-- {
		if l.Writes[i-1].Flush {
			return i
		}
	}
	return 0
}

// Replay writes to a disk what is on it after a power cut, starting with the request at from: the disk has the earlier
// ones.
func (l *WriteLog) Replay(disk string, from int, c PowerCut) error {
	if err := l.replay(disk, from, c); err != nil {
		return fmt.Errorf("cannot replay the log of writes: %w", err)
	}
	return nil
}

func (l *WriteLog) replay(disk string, from int, c PowerCut) error {
	log, err := os.Open(l.file)
	if err != nil {
		return err
	}
	defer log.Close()
	d, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	chance := rand.New(rand.NewPCG(c.Seed, 0))
	flushed := l.flushed(c.After)
	for i, w := range l.Writes[:c.After] {
		lost := i >= flushed && !w.Through && (c.Seed == 0 || chance.IntN(2) == 0)
		if i < from || lost || w.Flush {
			continue
		}
		if err := w.apply(d, log); err != nil {
			d.Close()
			return err
		}
	}
	return d.Close()
}

// apply carries out the request on a disk.
func (w Write) apply(disk *os.File, log io.ReaderAt) error {
	if w.Discard {
		return unix.Fallocate(int(disk.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, w.Offset, w.Length)
	}
	_, err := io.Copy(io.NewOffsetWriter(disk, w.Offset), io.NewSectionReader(log, w.data, w.Length))
	return err
}
