package rootfs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/updatectl/updatectl/arch"
)

// kargsDir has the kernel parameters that an image wants, in fragments that are read in the order of their names.
const kargsDir = "/usr/lib/updatectl/kargs.d"

// kargsFile is one fragment, in the format of bootc.
type kargsFile struct {
	Kargs []string `toml:"kargs"`
	// Architectures restricts it to some architectures, by the names that arch.Is knows; empty for all.
	Architectures []string `toml:"match-architectures"`
}

// parseKargs returns the parameters in a fragment, none when it is not for the machine.
func parseKargs(text, machine string) ([]string, error) {
	var f kargsFile
	meta, err := toml.Decode(text, &f)
	if err != nil {
		return nil, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("unknown key %s", unknown[0])
	}
	matches := func(name string) bool { return arch.Is(machine, name) }
	if len(f.Architectures) > 0 && !slices.ContainsFunc(f.Architectures, matches) {
		return nil, nil
	}
	var kargs []string
	for _, k := range f.Kargs { // an entry may hold several
		kargs = append(kargs, splitKargs(k)...)
	}
	return kargs, nil
}

// splitKargs splits a command line as the kernel does: at blanks outside double quotes.
func splitKargs(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
}

// plainKarg returns a parameter in a form that can be compared: for the kernel, - and _ in names are the same, and
// quotes do not count.
func plainKarg(k string) string {
	name, value, assigned := strings.Cut(strings.ReplaceAll(k, `"`, ""), "=")
	name = strings.ReplaceAll(name, "-", "_")
	if assigned {
		return name + "=" + value
	}
	return name
}

// repeatable are the parameters that may be given several times, because the kernel, the initrd or systemd reads them
// as a list. Of any other, the last one counts.
var repeatable = []string{
	"acpi_osi", "amd_iommu", "cgroup_disable", "console", "dyndbg", "earlycon", "efi", "hugepages", "hugepagesz",
	"ifname", "initrd", "intel_iommu", "iommu", "ip", "memmap", "modprobe.blacklist", "nameserver", "pci", "video",
}

// isRepeatable reports whether a parameter with this plain name may be given several times.
func isRepeatable(name string) bool {
	return slices.Contains(repeatable, name) || strings.HasPrefix(name, "rd.") || strings.HasPrefix(name, "systemd.")
}

// inForce returns the parameters in a list that no later one of the same name overrides.
func inForce(kargs []string) []string {
	var last []string
	later := map[string]bool{}
	for _, k := range slices.Backward(kargs) {
		name, _, _ := strings.Cut(plainKarg(k), "=")
		if !later[name] || isRepeatable(name) {
			last = append(last, k)
		}
		later[name] = true
	}
	slices.Reverse(last)
	return last
}

// MissingKargs returns the wanted parameters that are not in force on a command line.
func MissingKargs(commandLine string, wanted []string) []string {
	have := map[string]bool{}
	for _, k := range inForce(splitKargs(commandLine)) {
		have[plainKarg(k)] = true
	}
	var missing []string
	for _, k := range inForce(wanted) {
		if !have[plainKarg(k)] {
			missing = append(missing, k)
		}
	}
	return missing
}
