package rootfs

import (
	"debug/elf"
	"encoding/binary"
	"io"

	"github.com/updatectl/updatectl/arch"
)

// readProgram returns the GOARCH of an ELF program and the x86-64 level that it needs; "" and 0 when it is none.
func readProgram(r io.ReaderAt) (machine string, isa int) {
	program, err := elf.NewFile(r)
	if err != nil {
		return "", 0
	}
	const maxNote = 64 << 10
	machine = arch.OfHeader(program.FileHeader)
	if machine != "amd64" {
		return machine, 0
	}
	for _, segment := range program.Progs {
		if segment.Type != elf.PT_GNU_PROPERTY || segment.Filesz > maxNote {
			continue
		}
		if note, err := io.ReadAll(io.LimitReader(segment.Open(), maxNote)); err == nil {
			isa = max(isa, isaOfNote(note))
		}
	}
	return machine, isa
}

// isaOfNote returns the x86-64 level that a note of GNU properties asks for, 0 when it has none or is damaged. After a
// header, there are properties of type, size and data, padded to eight bytes (psABI, "Program Property").
func isaOfNote(note []byte) int {
	const (
		header  = 16 // sizes of name and data, type, "GNU\0"
		typeGNU = 5  // NT_GNU_PROPERTY_TYPE_0
		needed  = 0xc0008002
		padding = 8
	)
	le := binary.LittleEndian
	if len(note) < header || le.Uint32(note[8:]) != typeGNU || string(note[12:header]) != "GNU\x00" {
		return 0
	}
	rest := note[header:]
	for len(rest) >= 8 {
		kind, size := le.Uint32(rest), int64(le.Uint32(rest[4:]))
		rest = rest[8:]
		if size > int64(len(rest)) {
			return 0
		}
		if kind == needed && size == 4 {
			return isaOfBits(le.Uint32(rest))
		}
		rest = rest[min(int64(len(rest)), (size+padding-1)/padding*padding):]
	}
	return 0
}

// isaOfBits returns the highest level in the bits of GNU_PROPERTY_X86_ISA_1_NEEDED: baseline, v2, v3, v4.
func isaOfBits(bits uint32) int {
	for level := 4; level > 0; level-- {
		if bits&(1<<(level-1)) != 0 {
			return level
		}
	}
	return 0
}
