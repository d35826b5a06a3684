// Package patchestest makes minimal kernel modules for tests. No kernel loads them.
package patchestest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"strings"
)

// Module describes a module. The zero value of a field stands for that of a live patch for this machine.
type Module struct {
	Name    string
	Release string
	// Info replaces .modinfo. Its fields are separated by zero bytes.
	Info string
	// KnownAs is the name in struct module, by which the kernel knows it.
	KnownAs string
	Machine elf.Machine
	Type    elf.Type
	// Note is the content of the section with the build id.
	Note string
	// Signed appends something that looks like a signature.
	Signed bool
}

// section is a section of an ELF file.
type section struct{ name, content string }

// sections returns the sections of the module and, as the content of the last one, their names.
func (m Module) sections() (sections []section, names string) {
	if m.Info == "" {
		m.Info = "license=GPL\x00livepatch=Y\x00name=" + m.Name + "\x00vermagic=" + m.Release +
			" SMP preempt mod_unload \x00"
	}
	if m.KnownAs == "" {
		m.KnownAs = m.Name
	}
	const listHead = 24 // bytes before the name in struct module
	sections = []section{
		{"", ""},
		{".modinfo", m.Info},
		{".gnu.linkonce.this_module", strings.Repeat("\x00", listHead) + m.KnownAs + strings.Repeat("\x00", 64)},
	}
	if m.Note != "" {
		sections = append(sections, section{".note.gnu.build-id", m.Note})
	}
	sections = append(sections, section{".shstrtab", ""})
	for _, s := range sections {
		names += s.name + "\x00"
	}
	sections[len(sections)-1].content = names
	return sections, names
}

// Bytes returns the content of the file: an ELF header, the sections, their names, and the section table.
func (m Module) Bytes() []byte {
	if m.Machine == elf.EM_NONE {
		m.Machine = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	}
	if m.Type == elf.ET_NONE {
		m.Type = elf.ET_REL
	}
	sections, names := m.sections()
	const headerSize, entrySize = 64, 64 // of ELF64
	var body bytes.Buffer
	var table []elf.Section64
	for _, s := range sections {
		h := elf.Section64{Name: uint32(strings.Index(names, s.name+"\x00")), Off: uint64(headerSize + body.Len()),
			Size: uint64(len(s.content)), Addralign: 1}
		if s.name != "" {
			h.Type = uint32(elf.SHT_PROGBITS)
		}
		if s.name == ".shstrtab" {
			h.Type = uint32(elf.SHT_STRTAB)
		}
		body.WriteString(s.content)
		table = append(table, h)
	}
	header := elf.Header64{
		Type: uint16(m.Type), Machine: uint16(m.Machine), Version: uint32(elf.EV_CURRENT),
		Shoff:  uint64(headerSize + body.Len()),
		Ehsize: headerSize, Shentsize: entrySize, Shnum: uint16(len(table)), Shstrndx: uint16(len(table) - 1),
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64),
		byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)

	var file bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&file, binary.LittleEndian, v); err != nil {
			panic(err) // the types above have fixed sizes
		}
	}
	write(header)
	file.Write(body.Bytes())
	write(table)
	if m.Signed {
		file.WriteString("signature~Module signature appended~\n")
	}
	return file.Bytes()
}
