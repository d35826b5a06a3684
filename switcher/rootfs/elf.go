package rootfs

import (
	"debug/elf"
	"encoding/binary"
	"io"

	"github.com/updatectl/updatectl/arch"
)

// program is what an ELF program says about the machine that it needs; the zero value is no program.
type program struct {
	// machine is its GOARCH, isa the x86-64 level, kernel the oldest kernel, "" when it does not say.
	machine string
	isa     int
	kernel  string
}

// readProgram reads an ELF program.
func readProgram(r io.ReaderAt) program {
	file, err := elf.NewFile(r)
	if err != nil {
		return program{}
	}
	const maxNote = 64 << 10
	p := program{machine: arch.OfHeader(file.FileHeader)}
	for _, segment := range file.Progs {
		if segment.Filesz > maxNote || segment.Type != elf.PT_NOTE && segment.Type != elf.PT_GNU_PROPERTY {
			continue
		}
		note, err := io.ReadAll(io.LimitReader(segment.Open(), maxNote))
		switch {
		case err != nil:
		case segment.Type == elf.PT_NOTE && p.kernel == "":
			p.kernel = kernelOfNotes(note, file.ByteOrder)
		case segment.Type == elf.PT_GNU_PROPERTY && p.machine == "amd64":
			p.isa = max(p.isa, isaOfNote(note))
		}
	}
	return p
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
