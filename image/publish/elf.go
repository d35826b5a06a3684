package publish

import (
	"debug/elf"
	"encoding/binary"
)

// elfHead is how much of a program tells what it runs on: up to e_machine.
const elfHead = 20

// architecture returns what a program runs on, as Go and OCI name it, or "" if
// it is none that Linux distributions are made for.
func architecture(program []byte) string {
	if len(program) < elfHead || string(program[:4]) != elf.ELFMAG {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(program[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	big := order == binary.BigEndian
	wide := elf.Class(program[elf.EI_CLASS]) == elf.ELFCLASS64
	switch machine := elf.Machine(order.Uint16(program[18:20])); {
	case machine == elf.EM_X86_64:
		return "amd64"
	case machine == elf.EM_386:
		return "386"
	case machine == elf.EM_AARCH64:
		return "arm64"
	case machine == elf.EM_ARM:
		return "arm"
	case machine == elf.EM_RISCV && wide:
		return "riscv64"
	case machine == elf.EM_PPC64 && !big:
		return "ppc64le"
	case machine == elf.EM_S390 && wide:
		return "s390x"
	case machine == elf.EM_LOONGARCH && wide:
		return "loong64"
	}
	return ""
}
