package rootfs

import (
	"encoding/binary"
	"path/filepath"
	"testing"
)

// abiNote returns a note of the C library with the oldest kernel, after another note.
func abiNote(order binary.AppendByteOrder, system uint32, version ...uint32) []byte {
	note := order.AppendUint32(nil, 4) // a build id of four bytes
	note = order.AppendUint32(note, 4)
	note = append(order.AppendUint32(note, 3), "GNU\x00abcd"...)
	note = order.AppendUint32(note, 4)
	note = order.AppendUint32(note, 16)
	note = append(order.AppendUint32(note, 1), "GNU\x00"...)
	for _, n := range append([]uint32{system}, version...) {
		note = order.AppendUint32(note, n)
	}
	return note
}

func TestKernelOfNotes(t *testing.T) {
	for _, order := range []interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}{binary.LittleEndian, binary.BigEndian} {
		note := abiNote(order, 0, 3, 2, 0)
		if got := kernelOfNotes(note, order); got != "3.2.0" {
			t.Errorf("%v: got %q", order, got)
		}
		for _, damaged := range [][]byte{nil, note[:10], note[:len(note)-1], abiNote(order, 1, 3, 2, 0)} {
			if got := kernelOfNotes(damaged, order); got != "" {
				t.Errorf("%v: %x gives %q", order, damaged, got)
			}
		}
	}
}

// TestKernelNeed: the stricter of systemd and the C library counts.
func TestKernelNeed(t *testing.T) {
	for _, c := range []struct {
		systemd int
		libc    string
		want    KernelNeed
	}{
		{257, "3.2.0", KernelNeed{"3.15", "its systemd 257"}},
		{259, "", KernelNeed{"5.4", "its systemd 259"}},
		{262, "3.2.0", KernelNeed{"5.10", "its systemd 262"}},
		{257, "6.1.0", KernelNeed{"6.1.0", "its C library"}},
		{0, "3.2.0", KernelNeed{"3.2.0", "its C library"}},
		{0, "", KernelNeed{}},
	} {
		if got := Dir("/").kernelNeed(c.systemd, c.libc); got != c.want {
			t.Errorf("systemd %d with %q: %+v, want %+v", c.systemd, c.libc, got, c.want)
		}
	}
}

func TestCompareKernels(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"6.1.0-40-amd64", "5.10", 1}, {"5.10", "5.10.0", 0}, {"5.9.16", "5.10", -1}, {"6.12.1+deb13-amd64", "6.12", 1},
		{"6.12+deb13", "6.12", 0}, {"", "5.10", -1}, {"", "", 0}, {"6", "6.0.0", 0},
	} {
		if got := CompareKernels(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// TestThisLibrary: where this machine has the GNU C library, that says what it needs.
func TestThisLibrary(t *testing.T) {
	for _, dir := range Dir("/").Libraries() {
		file := filepath.Join("/", dir, "libc.so.6")
		if p := Dir("/").program(file); p.machine != "" && p.kernel == "" {
			t.Errorf("%s is a program for %s and needs no kernel", file, p.machine)
		}
	}
}
