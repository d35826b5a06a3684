package rootfs

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// isaNote returns a note of GNU properties: some property, then the needed x86-64 levels as bits.
func isaNote(bits uint32) []byte {
	le := binary.LittleEndian
	note := le.AppendUint32(nil, 4)
	note = le.AppendUint32(note, 32)
	note = le.AppendUint32(note, 5)
	note = append(note, "GNU\x00"...)
	for _, property := range [][2]uint32{{0xc0000002, 3}, {0xc0008002, bits}} { // the first: indirect branches are tracked
		note = le.AppendUint32(note, property[0])
		note = le.AppendUint32(note, 4)
		note = le.AppendUint64(note, uint64(property[1])) // and four bytes of padding
	}
	return note
}

// elfProgram returns an ELF file with a header, one program header, and the note that it points at.
func elfProgram(machine elf.Machine, bits uint32) []byte {
	note := isaNote(bits)
	const headers = 64 + 56
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56,
		Phnum: 1, Shentsize: 64,
	}
	p := elf.Prog64{Type: uint32(elf.PT_GNU_PROPERTY), Off: headers, Filesz: uint64(len(note)),
		Memsz: uint64(len(note)), Align: 8}
	var out bytes.Buffer
	for _, part := range []any{h, p, note} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return out.Bytes()
}

// bzImage returns the beginning of an x86 kernel image.
func bzImage(banner string) []byte {
	text := make([]byte, 0x1000, 0x2000)
	copy(text[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(text[0x20e:], uint16(len(text)-0x200))
	return append(append(text, banner...), 0)
}

func TestReadImage(t *testing.T) {
	root := t.TempDir()
	testtree.Write(t, root, "usr/lib/systemd/systemd", elfProgram(elf.EM_X86_64, 1), 0o755)
	testtree.Write(t, root, "usr/lib64/libc.so.6", elfProgram(elf.EM_X86_64, 1|1<<1|1<<2), 0o755)
	testtree.Write(t, root, "usr/lib/libc.so.6", elfProgram(elf.EM_386, 1<<3), 0o755) // beside it, for old programs
	testtree.Write(t, root, "usr/lib64/systemd/libsystemd-shared-257.9-2.el10.so", nil, 0o755)
	testtree.Write(t, root, "usr/lib/modules/6.12.0-1.el10.x86_64/modules.dep", nil, 0o644)
	testtree.Write(t, root, "usr/lib/modules/6.12.0-1.el10.x86_64/vmlinuz",
		bzImage("6.12.0-1.el10.x86_64 (mock@build) #1 SMP PREEMPT_DYNAMIC Tue May 20"), 0o755)
	testtree.Write(t, root, "usr/lib/modules/6.11.0-left-behind/extra/x.ko", nil, 0o644)
	testtree.Write(t, root, "usr/lib/updatectl/kargs.d/20-b.toml",
		[]byte("kargs = ['b=2']\nmatch-architectures = ['x86_64', 'riscv64']\n"), 0o644)
	testtree.Write(t, root, "usr/lib/updatectl/kargs.d/10-a.toml",
		[]byte("kargs = ['a', 'dyndbg=\"file a.c +p\" c']\n"), 0o644)
	testtree.Write(t, root, "usr/lib/updatectl/kargs.d/30-arm.toml",
		[]byte("kargs = ['d']\nmatch-architectures = ['aarch64']\n"), 0o644)
	testtree.Write(t, root, "usr/lib/updatectl/kargs.d/README", []byte("not one of them"), 0o644)
	testtree.Write(t, root, "etc/selinux/config", []byte("# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n"), 0o644)
	testtree.Write(t, root, "etc/selinux/targeted/policy/policy.9", []byte("old"), 0o644)
	testtree.Write(t, root, "etc/selinux/targeted/policy/policy.33", []byte("policy"), 0o644)
	got, err := ReadImage(root)
	if err != nil {
		t.Fatal(err)
	}
	if got.Systemd != 257 || got.Init != "/usr/lib/systemd/systemd" || got.Machine != "amd64" || got.ISA != 3 {
		t.Errorf("read %+v", got)
	}
	if want := []Kernel{{"6.12.0-1.el10.x86_64", "#1 SMP PREEMPT_DYNAMIC Tue May 20"}}; !slices.Equal(got.Kernels, want) {
		t.Errorf("kernels %+v, want %+v", got.Kernels, want)
	}
	if want := []string{"a", `dyndbg="file a.c +p"`, "c", "b=2"}; !slices.Equal(got.Kargs, want) {
		t.Errorf("kernel parameters %q, want %q", got.Kargs, want)
	}
	if want := (Policy{"targeted", fmt.Sprintf("%x", sha256.Sum256([]byte("policy")))}); got.SELinux != want {
		t.Errorf("policy %+v, want %+v", got.SELinux, want)
	}
}

func TestServes(t *testing.T) {
	root := t.TempDir()
	testtree.Write(t, root, "usr/lib/modules/6.1.0-40-amd64/modules.dep", nil, 0o644)
	testtree.Write(t, root, "usr/lib/modules/6.1.0-39-amd64/kernel/x.ko", nil, 0o644)
	testtree.Write(t, root, "boot/vmlinuz-6.1.0-40-amd64", bzImage("6.1.0-40-amd64 (a@b) #1 SMP Debian 6.1.153-1"), 0o644)
	testtree.Write(t, root, "usr/lib/modules/6.1.0-41-amd64/modules.dep", nil, 0o644)
	for _, c := range []struct {
		kernel                Kernel
		want, brings, carried bool
	}{
		{Kernel{"6.1.0-40-amd64", "#1 SMP Debian 6.1.153-1"}, true, true, true},
		{Kernel{"6.1.0-40-amd64", "#1 SMP Debian 6.1.152-1"}, false, false, true}, // the release stays over several builds
		{Kernel{"6.1.0-40-amd64", ""}, true, false, true},
		{Kernel{"6.1.0-41-amd64", "#1 SMP Debian 6.1.155-1"}, true, false, true}, // no kernel beside its modules
		{Kernel{"6.1.0-39-amd64", ""}, false, false, false},                      // a directory alone
		{Kernel{"6.1.0-42-amd64", ""}, false, false, false},
	} {
		if got := Dir(root).Brings(c.kernel); got != c.brings {
			t.Errorf("brings %s: %v, want %v", c.kernel, got, c.brings)
		}
		own, carried := Dir(root).ModulesAtHand(c.kernel, false), Dir(root).ModulesAtHand(c.kernel, true)
		if own != c.want || carried != c.carried {
			t.Errorf("at hand for %s: %v, when carried over %v; want %v, %v", c.kernel, own, carried, c.want, c.carried)
		}
		if got := Dir(root).serves(c.kernel); got != c.want {
			t.Errorf("serves %s: %v, want %v", c.kernel, got, c.want)
		}
	}
}

// TestReadImageStaysInside: an image is not to be trusted with the host's files.
func TestReadImageStaysInside(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	testtree.Write(t, outside, "program", elfProgram(elf.EM_X86_64, 1<<3), 0o755)
	testtree.Write(t, outside, "10-x.toml", []byte("kargs = ['stolen']\n"), 0o644)
	testtree.Write(t, outside, "kernel/modules.dep", nil, 0o644)
	for name, target := range map[string]string{
		"sbin/init":                     filepath.Join(outside, "program"),
		"usr/lib/updatectl/kargs.d":     outside,
		"usr/lib/modules":               outside,
		"etc/selinux/config":            "../../../../../../../../../" + outside + "/config",
		"usr/lib64/libc.so.6":           filepath.Join(outside, "program"),
		"usr/lib/x86_64-linux-gnu/conf": "/etc/passwd",
	} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadImage(root)
	if err != nil || got.Init != "" || got.Machine != "" || got.ISA != 0 || len(got.Kernels) != 0 || len(got.Kargs) != 0 {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestReadImageRefusesWhatItCannotRead(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"syntax":      {"kargs = [", "10-x.toml: toml: line 1"},
		"unknown key": {"kargs = ['a']\nkarg = ['b']\n", "unknown key karg"},
		"wrong type":  {"kargs = 'a'\n", "incompatible types"},
		"too large":   {"#" + strings.Repeat("x", 64<<10), "larger than 65536 bytes"},
	} {
		root := t.TempDir()
		testtree.Write(t, root, "usr/lib/updatectl/kargs.d/10-x.toml", []byte(c.text), 0o644)
		if _, err := ReadImage(root); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/lib/updatectl/kargs.d/10-dir.toml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadImage(root); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestMissingKargs(t *testing.T) {
	const line = `BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet snd-hda-intel.model=x "dyndbg=file a.c +p" mem="1 G" ` +
		`console=tty0 console=ttyS0,115200 ` +
		`mitigations=off spec-store=on rd.luks.uuid=1 mitigations=auto,nosmt spec_store=off rd.luks.uuid=2`
	for wanted, missing := range map[string]string{
		"quiet":                        "",
		"snd_hda_intel.model=x":        "",
		`dyndbg="file a.c +p"`:         "",
		`"mem=1 G"`:                    "",
		"console=ttyS0,115200":         "",
		"console=ttyS0":                "console=ttyS0",
		"console":                      "console",
		"rw":                           "rw",
		"console=tty0":                 "", // each is one
		"rd.luks.uuid=1":               "",
		"mitigations=off":              "mitigations=off", // the last counts
		"mitigations=auto,nosmt":       "",
		"spec_store=on spec-store=off": "", // also of those that are wanted
		"spec_store=on":                "spec_store=on",
		"quiet=1":                      "quiet=1",
		`mitigations=auto quiet nopti`: "mitigations=auto nopti",
	} {
		if got := strings.Join(MissingKargs(line, splitKargs(wanted)), " "); got != missing {
			t.Errorf("wanted %q: missing %q, want %q", wanted, got, missing)
		}
	}
}

func FuzzReadProgram(f *testing.F) {
	seeds := [][]byte{elfProgram(elf.EM_X86_64, 1<<2), elfProgram(elf.EM_AARCH64, 0), isaNote(1),
		abiNote(binary.LittleEndian, 0, 3, 2, 0), bzImage("6.12.0 (a@b) #1")}
	if len(seeds) < 2 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if p := readProgram(bytes.NewReader(text)); p.isa < 0 || p.isa > 4 || p.isa > 0 && p.machine != "amd64" {
			t.Errorf("read %+v", p)
		}
		if isa := isaOfNote(text); isa < 0 || isa > 4 {
			t.Errorf("note: x86-64-v%d", isa)
		}
		kernelOfNotes(text, binary.LittleEndian)
		bzImageVersion(bytes.NewReader(text), "6.12.0")
	})
}

func FuzzKargs(f *testing.F) {
	seeds := []string{"kargs = ['a=b', 'c']\nmatch-architectures = ['x86_64']\n", "kargs = ['\"a b']\n", ""}
	if len(seeds) < 2 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		kargs, err := parseKargs(text, "amd64")
		if err == nil && len(MissingKargs(strings.Join(kargs, " "), kargs)) > 0 && !strings.Contains(text, `"`) {
			t.Errorf("%q is not on a command line of itself", kargs)
		}
	})
}

// TestProgramOfAnotherByteOrder: big-endian POWER is another architecture than ppc64le.
func TestProgramOfAnotherByteOrder(t *testing.T) {
	for order, want := range map[binary.ByteOrder]string{binary.LittleEndian: "ppc64le", binary.BigEndian: ""} {
		h := elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB),
			byte(elf.EV_CURRENT)}, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_PPC64), Version: 1, Ehsize: 64}
		if want == "" {
			h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
		}
		var text bytes.Buffer
		if err := binary.Write(&text, order, h); err != nil {
			t.Fatal(err)
		}
		if got := readProgram(bytes.NewReader(text.Bytes())).machine; got != want {
			t.Errorf("%v: got %q, want %q", order, got, want)
		}
	}
}
