package arch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// head returns the beginning of a program.
func head(class elf.Class, data elf.Data, m elf.Machine) []byte {
	h := make([]byte, HeadSize)
	copy(h, elf.ELFMAG)
	h[elf.EI_CLASS], h[elf.EI_DATA] = byte(class), byte(data)
	var order binary.ByteOrder = binary.LittleEndian
	if data == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	order.PutUint16(h[HeadSize-2:], uint16(m))
	return h
}

func TestOf(t *testing.T) {
	const small, wide, little, big = elf.ELFCLASS32, elf.ELFCLASS64, elf.ELFDATA2LSB, elf.ELFDATA2MSB
	for _, c := range []struct {
		name string
		head []byte
		want string
	}{
		{"amd64", head(wide, little, elf.EM_X86_64), "amd64"},
		{"x32", head(small, little, elf.EM_X86_64), "amd64"},
		{"386", head(small, little, elf.EM_386), "386"},
		{"arm64", head(wide, little, elf.EM_AARCH64), "arm64"},
		{"arm", head(small, little, elf.EM_ARM), "arm"},
		{"riscv64", head(wide, little, elf.EM_RISCV), "riscv64"},
		{"riscv32", head(small, little, elf.EM_RISCV), ""},
		{"ppc64le", head(wide, little, elf.EM_PPC64), "ppc64le"},
		{"ppc64", head(wide, big, elf.EM_PPC64), ""},
		{"s390x", head(wide, big, elf.EM_S390), "s390x"},
		{"s390", head(small, big, elf.EM_S390), ""},
		{"loong64", head(wide, little, elf.EM_LOONGARCH), "loong64"},
		{"another machine", head(wide, little, elf.EM_SPARCV9), ""},
		{"longer than its head", append(head(wide, little, elf.EM_AARCH64), "code"...), "arm64"},
		{"cut short", head(wide, little, elf.EM_AARCH64)[:HeadSize-1], ""},
		{"script", bytes.Repeat([]byte("#!/bin/sh\n"), 3), ""},
		{"empty", nil, ""},
	} {
		if got := Of(c.head); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPlatform(t *testing.T) {
	for want, p := range map[string]ocispec.Platform{
		"arm64":         {OS: "linux", Architecture: "arm64"},
		"amd64":         {Architecture: "amd64"},
		"arm/v7":        {OS: "linux", Architecture: "arm", Variant: "v7"},
		"windows/amd64": {OS: "windows", Architecture: "amd64"},
	} {
		if got := Platform(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestIs: each architecture by the names of uname -m, of bootc and of Go.
func TestIs(t *testing.T) {
	for goarch, names := range map[string][]string{
		"amd64": {"x86_64", "amd64"}, "386": {"i686", "x86", "386"}, "arm64": {"aarch64", "arm64"},
		"arm": {"armv7l", "arm"}, "ppc64le": {"ppc64le", "powerpc64"}, "riscv64": {"riscv64"}, "s390x": {"s390x"},
		"loong64": {"loongarch64", "loong64"},
	} {
		for _, name := range names {
			if !Is(goarch, name) {
				t.Errorf("%s is not known as %s", goarch, name)
			}
		}
		for _, other := range []string{"", "x86-64", "sparc64", "ppc64", "arm65"} {
			if Is(goarch, other) {
				t.Errorf("%s is taken for %s", other, goarch)
			}
		}
	}
}
