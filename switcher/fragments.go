package switcher

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// configDirs are where systemd and kmod look for NAME.d; of two files with the same name, the one found first counts.
var configDirs = []string{"/etc", "/run", "/usr/local/lib", "/usr/lib"}

// fragments reads the .conf files of a NAME.d, in the order of their names. A file masks those of the same name in later
// directories also when it is empty, a link to /dev/null, or cannot be read.
func (t rootDir) fragments(name string) []string {
	const maxFragment = 1 << 20
	first := map[string]string{}
	for _, dir := range configDirs {
		for _, file := range t.names(filepath.Join(dir, name)) {
			if _, masked := first[file]; masked || !strings.HasSuffix(file, ".conf") {
				continue
			}
			text, _ := t.read(filepath.Join(dir, name, file), maxFragment)
			first[file] = string(text)
		}
	}
	var texts []string
	for _, file := range slices.Sorted(maps.Keys(first)) {
		texts = append(texts, first[file])
	}
	return texts
}
