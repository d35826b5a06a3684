package rootfs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// KernelNeed is the oldest kernel that something can run on.
type KernelNeed struct {
	// Version is like "5.10", "" when nothing is known to need one.
	Version string `json:"version,omitempty"`
	// By says what needs it.
	By string `json:"by,omitempty"`
}

// stricter returns the need for the newer kernel.
func (n KernelNeed) stricter(other KernelNeed) KernelNeed {
	if CompareKernels(other.Version, n.Version) > 0 {
		return other
	}
	return n
}

// systemdNeeds has the versions of systemd that raised the oldest kernel that systemd supports, the latest first, as
// its README has it ("minimum baseline").
var systemdNeeds = []struct {
	systemd int
	kernel  string
}{{260, "5.10"}, {258, "5.4"}, {1, "3.15"}}

// kernelNeed returns the oldest kernel that the tree can run on, by its systemd and by what its C library says itself.
func (t Dir) kernelNeed(systemd int, libc string) KernelNeed {
	need := KernelNeed{}
	if libc != "" {
		need = KernelNeed{Version: libc, By: "its C library"}
	}
	for _, s := range systemdNeeds {
		if systemd >= s.systemd {
			return need.stricter(KernelNeed{Version: s.kernel, By: fmt.Sprintf("its systemd %d", systemd)})
		}
	}
	return need
}

// kernelOfNotes returns the oldest kernel that a GNU C library says it needs in ELF notes, "" when they do not have it
// (NT_GNU_ABI_TAG). Notes have sizes of name and data and a type, then both, padded to four bytes; the data are the
// system (0 is Linux) and three numbers of a version.
func kernelOfNotes(notes []byte, order binary.ByteOrder) string {
	const header, typeABI, linux, padding = 12, 1, 0, 4
	padded := func(n uint32) int64 { return (int64(n) + padding - 1) / padding * padding }
	for len(notes) >= header {
		name, desc, kind := padded(order.Uint32(notes)), padded(order.Uint32(notes[4:])), order.Uint32(notes[8:])
		notes = notes[header:]
		if name+desc > int64(len(notes)) {
			return ""
		}
		data := notes[name : name+desc]
		if kind == typeABI && string(notes[:name]) == "GNU\x00" && len(data) >= 16 && order.Uint32(data) == linux {
			return fmt.Sprintf("%d.%d.%d", order.Uint32(data[4:]), order.Uint32(data[8:]), order.Uint32(data[12:]))
		}
		notes = notes[name+desc:]
	}
	return ""
}

// CompareKernels compares the numbers at the start of two releases of the kernel, such as "6.1.0-40-amd64" and "5.10":
// it is negative if a is older, 0 if they are the same or nothing can be said about them.
func CompareKernels(a, b string) int { return slices.Compare(numbersOf(a), numbersOf(b)) }

// numbersOf returns the first three numbers of a release, those that are missing as 0.
func numbersOf(release string) []int {
	version, _, _ := strings.Cut(release, "-")
	numbers := make([]int, 3)
	for i, part := range strings.SplitN(version, ".", len(numbers)) {
		numbers[i] = LeadingNumber(part)
	}
	return numbers
}
