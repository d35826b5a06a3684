package packages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The format of rpm's own database (lib/backend/ndb/rpmpkg.c): pages of slots, the first two of which are the head of
// the file; each slot says where a blob is, in units of blocks.
const (
	ndbMagic, ndbSlotMagic, ndbBlobMagic = 0x506d7052, 0x746f6c53, 0x53626c42 // "RpmP", "Slot", "BlbS"
	ndbHead, ndbSlot, ndbBlock           = 32, 16, 16
	ndbPage                              = 4096
	ndbMaxPages                          = maxPackages/(ndbPage/ndbSlot) + 1
)

// readNDB calls visit with the beginning of each header in a database of that format.
func readNDB(f io.ReaderAt, _ int64, visit func([]byte) error) error {
	head := make([]byte, ndbHead)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	pages := binary.LittleEndian.Uint32(head[12:])
	if binary.LittleEndian.Uint32(head) != ndbMagic || binary.LittleEndian.Uint32(head[4:]) != 0 {
		return errors.New("it is not a package database of rpm")
	}
	if pages == 0 || pages > ndbMaxPages {
		return fmt.Errorf("it has %d pages of slots", pages)
	}
	slots := make([]byte, int(pages)*ndbPage-ndbHead)
	if _, err := f.ReadAt(slots, ndbHead); err != nil {
		return err
	}
	for ; len(slots) > 0; slots = slots[ndbSlot:] {
		number, block := binary.LittleEndian.Uint32(slots[4:]), binary.LittleEndian.Uint32(slots[8:])
		if binary.LittleEndian.Uint32(slots) != ndbSlotMagic {
			return errors.New("a slot is damaged")
		}
		if number == 0 { // free
			continue
		}
		at := int64(block) * ndbBlock
		if _, err := f.ReadAt(head[:ndbBlock], at); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(head) != ndbBlobMagic || binary.LittleEndian.Uint32(head[4:]) != number {
			return fmt.Errorf("the package %d is not where its slot says", number)
		}
		header := make([]byte, min(maxHeader, binary.LittleEndian.Uint32(head[12:])))
		if _, err := f.ReadAt(header, at+ndbBlock); err != nil {
			return err
		}
		if err := visit(header); err != nil {
			return err
		}
	}
	return nil
}
