package rootfs

import (
	"strings"
)

// ParseOptions reads the options that modprobe.d(5) files give to modules, by module; several lines for one add up.
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

// moduleName is the kernel's spelling: it takes - and _ for the same.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }
