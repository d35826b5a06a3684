package patches

import (
	"debug/elf"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/image/patches/patchestest"
	"github.com/updatectl/updatectl/image/release"
)

const kernel = "6.12.48+deb13-amd64"

func TestParse(t *testing.T) {
	good := patchestest.Module{Name: "fix_one", Release: kernel}
	change := func(f func(*patchestest.Module)) []byte {
		m := good
		f(&m)
		return m.Bytes()
	}
	for name, c := range map[string]struct {
		content []byte
		want    string // of the error, "" for none
	}{
		"good":          {good.Bytes(), ""},
		"signed":        {change(func(m *patchestest.Module) { m.Signed = true }), ""},
		"with build id": {change(func(m *patchestest.Module) { m.Note = "note" }), ""},
		"empty":         {nil, "not an uncompressed kernel module"},
		"text":          {[]byte("a text"), "not an uncompressed kernel module"},
		"compressed":    {[]byte("\xfd7zXZ\x00 and more"), "not an uncompressed kernel module"},
		"cut short":     {good.Bytes()[:80], "not an uncompressed kernel module"},
		"program": {change(func(m *patchestest.Module) { m.Type = elf.ET_EXEC }),
			"of type ET_EXEC"},
		"other module": {change(func(m *patchestest.Module) {
			m.Info = "name=fix_one\x00vermagic=" +
				kernel + " SMP\x00"
		}), "livepatch=Y"},
		"said no": {change(func(m *patchestest.Module) { m.Info = "name=fix_one\x00livepatch=N\x00vermagic=x\x00" }),
			"livepatch=Y"},
		"no name": {change(func(m *patchestest.Module) { m.Info = "livepatch=Y\x00vermagic=x\x00" }), "its name"},
		"no kernel": {change(func(m *patchestest.Module) { m.Info = "livepatch=Y\x00name=fix_one\x00" }),
			"the kernel that it was built for"},
		"two names": {
			change(func(m *patchestest.Module) { m.Info = "livepatch=Y\x00name=a\x00name=b\x00vermagic=x\x00" }),
			"has name twice"},
		"another name for the kernel": {change(func(m *patchestest.Module) { m.KnownAs = "fix_one_more" }),
			`says that the module is called "fix_one"`},
		"large .modinfo": {change(func(m *patchestest.Module) {
			m.Info = strings.Repeat("x", maxInfo+
				1)
		}), "cannot read its section .modinfo"},
		"too large": {make([]byte, MaxModule+1), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Parse(c.content)
			if c.want != "" {
				if !errors.Is(err, ErrModule) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			if err != nil || m.Name != "fix_one" || m.KernelRelease != kernel || m.Signed != (name == "signed") ||
				(m.Note != nil) != (name == "with build id") {
				t.Errorf("%+v, %v", m, err)
			}
			if err := m.CheckMachine(runtime.GOARCH); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	m := Module{Name: "fix_one", KernelRelease: kernel, Architecture: "arm64"}
	for _, c := range []struct{ name, release, want string }{
		{"fix_one", kernel, ""},
		{"fix_two", kernel, `is called "fix_one", and the release lists it as "fix_two"`},
		{"fix_one", "6.1.0", "was built for the kernel"},
	} {
		err := m.Check(release.LivePatch{Name: c.name, KernelRelease: c.release})
		if c.want == "" && err != nil || c.want != "" &&
			(!errors.Is(err, ErrModule) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := m.CheckMachine("arm64"); err != nil {
		t.Errorf("%v", err)
	}
	for _, other := range []string{"amd64", "riscv64"} {
		if err := m.CheckMachine(other); !errors.Is(err, ErrModule) {
			t.Errorf("%s: %v", other, err)
		}
	}
}

// Whatever bytes a module has, parsing it returns a live patch with a name and a kernel, or an ErrModule.
func FuzzParse(f *testing.F) {
	seeds := [][]byte{
		patchestest.Module{Name: "fix_one", Release: kernel, Note: "note", Signed: true}.Bytes(),
		patchestest.Module{Info: "livepatch=Y\x00name=\x00vermagic= \x00"}.Bytes(),
		[]byte(elf.ELFMAG),
	}
	if len(slices.Concat(seeds...)) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := Parse(content)
		if err != nil && !errors.Is(err, ErrModule) {
			t.Errorf("%v has no class", err)
		}
		if err == nil && (m.Name == "" || m.KernelRelease == "" || strings.ContainsRune(m.Name, 0)) {
			t.Errorf("parsed %+v", m)
		}
	})
}
