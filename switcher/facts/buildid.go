package facts

import (
	"encoding/binary"
	"encoding/hex"
	"os"
)

// kernelNotes has the ELF notes of the running kernel (elf(5), sysfs-kernel-notes).
const kernelNotes = "/sys/kernel/notes"

// readBuildID returns the GNU build id of the running kernel in hexadecimal digits, "" when it has none.
func (m Machine) readBuildID() string {
	notes, err := os.ReadFile(m.Path(kernelNotes))
	if err != nil {
		return ""
	}
	return buildID(notes)
}

// buildID returns the GNU build id in ELF notes of this machine's byte order, "" when there is none.
func buildID(notes []byte) string {
	const header = 12 // sizes of name and descriptor, and the type
	const typeBuildID = 3
	for len(notes) >= header {
		name, desc := int64(binary.NativeEndian.Uint32(notes)), int64(binary.NativeEndian.Uint32(notes[4:]))
		kind := binary.NativeEndian.Uint32(notes[8:])
		notes = notes[header:]
		if padded(name)+padded(desc) > int64(len(notes)) {
			return ""
		}
		if kind == typeBuildID && string(notes[:name]) == "GNU\x00" {
			return hex.EncodeToString(notes[padded(name):][:desc])
		}
		notes = notes[padded(name)+padded(desc):]
	}
	return ""
}

// padded returns how many bytes n bytes take in a note, with padding.
func padded(n int64) int64 { return (n + 3) &^ 3 }
