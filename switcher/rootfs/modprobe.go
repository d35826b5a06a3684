package rootfs

import (
	"strings"
)

// ParseOptions returns the options in modprobe.d(5) files, by module. Several lines for one module add up.
func ParseOptions(texts []string) map[string]string {
	options := map[string]string{}
	for _, text := range texts {
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
			words := strings.Fields(line)
			if len(words) < 3 || words[0] != "options" {
				continue
			}
			module := moduleName(words[1])
			options[module] = strings.TrimSpace(options[module] + " " + strings.Join(words[2:], " "))
		}
	}
	return options
}

// moduleName returns a module's name as the kernel spells it, for which - and _ are the same.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }
