package switcher

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// isaFlags are the flags of /proc/cpuinfo that each x86-64 level adds (x86-64 psABI, table 3.1). What the kernel calls abm
// is LZCNT, pni is SSE3; OSXSAVE is implied by avx, which the kernel shows only when it saves that state.
var isaFlags = [][]string{
	2: {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
	3: {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
	4: {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}

// isaOfFlags is the x86-64 level of a processor with these flags, 1 to 4.
func isaOfFlags(flags string) int {
	have := strings.Fields(flags)
	level := 1
	for level+1 < len(isaFlags) {
		for _, flag := range isaFlags[level+1] {
			if !slices.Contains(have, flag) {
				return level
			}
		}
		level++
	}
	return level
}

// isaOfVariant is the x86-64 level in an OCI platform's variant, 0 when it names none.
func isaOfVariant(variant string) int {
	if n := slices.Index([]string{"", "v1", "v2", "v3", "v4"}, variant); n > 0 {
		return n
	}
	return 0
}

// cpu reads a field of the first processor, "" when the kernel does not tell.
func (m Machine) cpu(name string) (string, error) {
	const oneProcessor = 16 << 10 // has two kilobytes; a large machine takes its time for all of them
	f, err := os.Open(m.Path("/proc/cpuinfo"))
	if err != nil {
		return "", fmt.Errorf("cannot read what the processor is: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, oneProcessor))
	if err != nil {
		return "", fmt.Errorf("cannot read what the processor is: %w", err)
	}
	return cpuField(string(text), name), nil
}

// Microcode is the revision that the processor runs, "" where the kernel does not tell.
func (m Machine) Microcode() string {
	revision, err := m.cpu("microcode")
	if err != nil {
		return ""
	}
	return revision
}

// cpuField is a field of the first processor in /proc/cpuinfo, "" when it has none of that name.
func cpuField(cpuinfo, name string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// machines are the GOARCH of what ELF calls machines.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_386: "386", elf.EM_AARCH64: "arm64", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
	elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
}

// programs reads from the init and the C library what machine they are built for, and the x86-64 level they need. The
// library counts because nothing runs without it; distributions for newer processors mark it.
func (t rootDir) programs(init string) (machine string, isa int) {
	machine, isa = t.program(init)
	for _, dir := range t.libraries() {
		if m, needed := t.program(filepath.Join(dir, "libc.so.6")); m == machine { // not of another architecture beside it
			isa = max(isa, needed)
		}
	}
	return machine, isa
}

// program reads the header of an ELF program; "" and 0 when it is none.
func (t rootDir) program(p string) (machine string, isa int) {
	const maxProgram = 64 << 20 // a C library has two megabytes, systemd's own a few
	f, err := t.open(p)
	if err != nil {
		return "", 0
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() > maxProgram {
		return "", 0
	}
	return readProgram(f)
}

func readProgram(r io.ReaderAt) (machine string, isa int) {
	program, err := elf.NewFile(r)
	if err != nil {
		return "", 0
	}
	const maxNote = 64 << 10
	machine = machines[program.Machine]
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

// isaOfNote reads the x86-64 level needed from a note of GNU properties (psABI, "Program Property"): a header, then
// properties of type, size and data, padded to eight bytes. 0 when it says nothing, or is damaged.
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

// isaOfBits is the highest level among the bits of GNU_PROPERTY_X86_ISA_1_NEEDED: baseline, v2, v3, v4.
func isaOfBits(bits uint32) int {
	for level := 4; level > 0; level-- {
		if bits&(1<<(level-1)) != 0 {
			return level
		}
	}
	return 0
}
