package facts

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// isaFlags are the flags of /proc/cpuinfo that each x86-64 level adds (x86-64 psABI, table 3.1). The kernel calls LZCNT
// abm, and SSE3 pni; avx implies OSXSAVE, because the kernel shows avx only if it saves that state.
var isaFlags = [][]string{
	2: {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
	3: {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
	4: {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}

// isaOfFlags returns the x86-64 level of a processor with these flags, 1 to 4.
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

// cpuInfo returns a field of the first processor, "" when the kernel does not show it.
func (m Machine) cpuInfo(name string) (string, error) {
	const oneProcessor = 16 << 10 // one takes some 2 KiB; reading all of a large machine is slow
	f, err := os.Open(m.Path("/proc/cpuinfo"))
	if err != nil {
		return "", fmt.Errorf("cannot read the processor's description: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, oneProcessor))
	if err != nil {
		return "", fmt.Errorf("cannot read the processor's description: %w", err)
	}
	return cpuField(string(text), name), nil
}

// Microcode returns the revision of the microcode that the processor runs, "" when the kernel does not show it.
func (m Machine) Microcode() string {
	revision, err := m.cpuInfo("microcode")
	if err != nil {
		return ""
	}
	return revision
}

// cpuField returns a field of the first processor in the text of /proc/cpuinfo, "" when it has none of that name.
func cpuField(cpuinfo, name string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
