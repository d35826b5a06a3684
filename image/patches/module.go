package patches

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/arch"
	"github.com/updatectl/updatectl/image/release"
)

// ErrModule means that a file is no live patch, or not the one that its release lists.
var ErrModule = errors.New("not a live patch for this kernel")

const (
	// PartType is the media type of a live patch's only layer, an uncompressed kernel module.
	PartType = "application/vnd.updatectl.livepatch.module.v1"
	// MaxModule bounds a kernel module, in bytes. The largest live patches have a few megabytes.
	MaxModule = 64 << 20
	// maxInfo bounds .modinfo, which has a few hundred bytes; maxNote bounds a build id with its header.
	maxInfo = 64 << 10
	maxNote = 1 << 10
	// maxThis bounds struct module, by which the kernel knows a module. It takes about one page.
	maxThis = 64 << 10
	// signatureMagic ends a module that has an appended signature (Documentation/admin-guide/module-signing.rst).
	signatureMagic = "~Module signature appended~\n"
)

// Module describes a kernel module in its own words.
type Module struct {
	// Name is the name by which the kernel knows it.
	Name string
	// KernelRelease is the release of the kernel that it was built for: the first word of its version magic, which the
	// kernel may ignore.
	KernelRelease string
	// Architecture is the GOARCH that it is for, "" if unknown.
	Architecture string
	// Note is the section with its build id, as the kernel shows it in /sys/module; nil if there is none.
	Note []byte
	// Signed reports whether a signature is appended. The kernel decides whether it is good.
	Signed bool
}

// Parse reads a kernel module that is a live patch. The error is an ErrModule.
func Parse(content []byte) (Module, error) {
	if len(content) > MaxModule {
		return Module{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrModule, len(content), MaxModule)
	}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return Module{}, fmt.Errorf("%w: it is not an uncompressed kernel module", ErrModule)
	}
	if f.Type != elf.ET_REL {
		return Module{}, fmt.Errorf("%w: it is an ELF file of type %s and not a kernel module", ErrModule, f.Type)
	}
	m := Module{Architecture: arch.OfHeader(f.FileHeader), Signed: bytes.HasSuffix(content, []byte(signatureMagic))}
	info, err := section(f, ".modinfo", maxInfo)
	if err != nil {
		return Module{}, err
	}
	if err := m.readInfo(info); err != nil {
		return Module{}, err
	}
	if m.Note, err = section(f, ".note.gnu.build-id", maxNote); err != nil {
		return Module{}, err
	}
	return m, m.checkName(f)
}

// section returns the content of a section, or nil if there is none.
func section(f *elf.File, name string, limit uint64) ([]byte, error) {
	s := f.Section(name)
	if s == nil {
		return nil, nil
	}
	// No tool compresses these sections, and the size of the content would be unbounded.
	if s.Type == elf.SHT_NOBITS || s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > limit {
		return nil, fmt.Errorf("%w: cannot read its section %s: %d bytes, %s", ErrModule, name, s.FileSize, s.Type)
	}
	data, err := io.ReadAll(io.LimitReader(s.Open(), int64(limit)))
	if err != nil {
		return nil, fmt.Errorf("%w: its section %s is damaged", ErrModule, name)
	}
	return data, nil
}

// readInfo reads the fields of .modinfo, NAME=VALUE, each of which ends with a zero byte.
func (m *Module) readInfo(info []byte) error {
	fields := map[string]string{}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "name", "vermagic", "livepatch":
			if _, twice := fields[name]; twice {
				return fmt.Errorf("%w: its .modinfo has %s twice", ErrModule, name)
			}
			fields[name] = value
		}
	}
	m.Name = fields["name"]
	m.KernelRelease, _, _ = strings.Cut(fields["vermagic"], " ")
	switch {
	case fields["livepatch"] != "Y":
		return fmt.Errorf("%w: the module does not say that it is a live patch (livepatch=Y in .modinfo)", ErrModule)
	case m.Name == "" || m.KernelRelease == "":
		return fmt.Errorf("%w: the module does not say its name and the kernel that it was built for (.modinfo)",
			ErrModule)
	}
	return nil
}

// checkName checks that struct module has the name in .modinfo. Otherwise the module would be looked for under a name
// by which the kernel does not know it.
func (m *Module) checkName(f *elf.File) error {
	this, err := section(f, ".gnu.linkonce.this_module", maxThis)
	if err != nil {
		return err
	}
	if !bytes.Contains(this, []byte("\x00"+m.Name+"\x00")) {
		return fmt.Errorf("%w: .modinfo says that the module is called %q, and the kernel would call it otherwise",
			ErrModule, m.Name)
	}
	return nil
}

// Check compares the module with its entry in a release. The error is an ErrModule.
func (m Module) Check(p release.LivePatch) error {
	switch {
	case m.Name != p.Name:
		return fmt.Errorf("%w: the module is called %q, and the release lists it as %q", ErrModule, m.Name, p.Name)
	case m.KernelRelease != p.KernelRelease:
		return fmt.Errorf("%w: %s was built for the kernel %q, and the release lists it for %q", ErrModule, m.Name,
			m.KernelRelease, p.KernelRelease)
	}
	return nil
}

// CheckMachine checks that the module is for hosts of this architecture, a GOARCH. The error is an ErrModule.
func (m Module) CheckMachine(architecture string) error {
	if m.Architecture == architecture && architecture != "" {
		return nil
	}
	return fmt.Errorf("%w: %s is for %s, and this host is %s", ErrModule, m.Name,
		cmp.Or(m.Architecture, "an unknown architecture"), architecture)
}
