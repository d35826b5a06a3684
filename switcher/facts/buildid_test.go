package facts

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// elfNote returns an ELF note in the form that the kernel has.
func elfNote(name string, kind uint32, desc string) string {
	pad := func(s string) string { return s + string(make([]byte, padded(int64(len(s)))-int64(len(s)))) }
	header := binary.NativeEndian.AppendUint32(nil, uint32(len(name)))
	header = binary.NativeEndian.AppendUint32(header, uint32(len(desc)))
	header = binary.NativeEndian.AppendUint32(header, kind)
	return string(header) + pad(name) + pad(desc)
}

func TestBuildID(t *testing.T) {
	id := elfNote("GNU\x00", 3, "\xc0\xff\xee\x01\x02")
	for name, c := range map[string]struct{ notes, want string }{
		"first": {id + elfNote("Linux\x00", 0x101, "x"), "c0ffee0102"},
		"after others": {elfNote("Linux\x00", 0x101, "xyz") + elfNote("Xen\x00", 3, "1234") +
			elfNote("GNU\x00", 1, "abi") + id, "c0ffee0102"},
		"none":            {elfNote("Linux\x00", 0x101, "x"), ""},
		"no notes":        {"", ""},
		"cut in the head": {id[:8], ""},
		"cut in the id":   {id[:17], ""},
		"size too large":  {"\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00\x00\x00GNU\x00", ""},
	} {
		if got := buildID([]byte(c.notes)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// The kernel that runs this test has a build id, and a tree without /sys has none.
func TestReadBuildID(t *testing.T) {
	if _, err := os.Stat(kernelNotes); err != nil {
		t.Fatalf("cannot test without the kernel's notes: %v", err)
	}
	if id := (Machine{Root: "/"}).readBuildID(); !regexp.MustCompile(`^([0-9a-f]{2}){8,32}$`).MatchString(id) {
		t.Errorf("this kernel has the build id %q", id)
	}
	tree := t.TempDir()
	if id := (Machine{Root: tree}).readBuildID(); id != "" {
		t.Errorf("a tree without notes has the build id %q", id)
	}
	file := filepath.Join(tree, kernelNotes)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(elfNote("GNU\x00", 3, "\x01\x02")), 0o644); err != nil {
		t.Fatal(err)
	}
	if id := (Machine{Root: tree}).readBuildID(); id != "0102" {
		t.Errorf("%q, want 0102", id)
	}
}
