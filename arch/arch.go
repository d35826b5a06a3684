// Package arch names architectures and platforms as Go and OCI do.
package arch

import (
	"debug/elf"
	"encoding/binary"
	"slices"
)

// HeadSize is how many bytes of a program [Of] reads: up to and including e_machine.
const HeadSize = 20

// machines lists the architectures that Linux distributions support. A class or byte order of zero matches any.
var machines = []struct {
	machine elf.Machine
	class   elf.Class
	data    elf.Data
	name    string
}{
	{elf.EM_X86_64, elf.ELFCLASSNONE, elf.ELFDATANONE, "amd64"},
	{elf.EM_386, elf.ELFCLASSNONE, elf.ELFDATANONE, "386"},
	{elf.EM_AARCH64, elf.ELFCLASSNONE, elf.ELFDATANONE, "arm64"},
	{elf.EM_ARM, elf.ELFCLASSNONE, elf.ELFDATANONE, "arm"},
	{elf.EM_RISCV, elf.ELFCLASS64, elf.ELFDATANONE, "riscv64"},
	{elf.EM_PPC64, elf.ELFCLASSNONE, elf.ELFDATA2LSB, "ppc64le"},
	{elf.EM_S390, elf.ELFCLASS64, elf.ELFDATANONE, "s390x"},
	{elf.EM_LOONGARCH, elf.ELFCLASS64, elf.ELFDATANONE, "loong64"},
}

// Of returns the GOARCH of the program that begins with head, or "" if that is no ELF file or another architecture.
func Of(head []byte) string {
	if len(head) < HeadSize || string(head[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return ""
	}
	h := elf.FileHeader{Class: elf.Class(head[elf.EI_CLASS]), Data: elf.Data(head[elf.EI_DATA]),
		ByteOrder: binary.LittleEndian}
	if h.Data == elf.ELFDATA2MSB {
		h.ByteOrder = binary.BigEndian
	}
	h.Machine = elf.Machine(h.ByteOrder.Uint16(head[HeadSize-2:]))
	return OfHeader(h)
}

// OfHeader returns the GOARCH of an ELF header, or "".
func OfHeader(h elf.FileHeader) string {
	for _, m := range machines {
		if m.machine == h.Machine && (m.class == elf.ELFCLASSNONE || m.class == h.Class) &&
			(m.data == elf.ELFDATANONE || m.data == h.Data) {
			return m.name
		}
	}
	return ""
}

// otherNames are the names of architectures that Go calls otherwise: those that uname(2) returns, and those of bootc,
// which are Rust's.
var otherNames = map[string][]string{
	"amd64":   {"x86_64"},
	"386":     {"i386", "i486", "i586", "i686", "x86"},
	"arm64":   {"aarch64"},
	"arm":     {"armv5tel", "armv6l", "armv7l", "armv8l"},
	"ppc64le": {"powerpc64"},
	"loong64": {"loongarch64"},
}

// Is reports whether a name is that of a GOARCH, in the words of Go, of uname(2) or of bootc.
func Is(goarch, name string) bool { return name == goarch || slices.Contains(otherNames[goarch], name) }
