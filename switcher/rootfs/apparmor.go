package rootfs

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// profileHead matches the line that begins a profile: "profile NAME ... {", or a path as its name.
var profileHead = regexp.MustCompile(`^(?:profile[ \t]+("[^"]+"|[^\s"]+)|("/[^"]+"|/[^\s"]+)[^#]*\{)`)

// Profiles returns the names of the AppArmor profiles that a tree defines, sorted. Profiles in other profiles, and
// those whose names have variables, are left out: the kernel has them under other names.
func Profiles(t Dir) []string {
	const dir, maxProfile = "/etc/apparmor.d", 1 << 20 // a profile has a few kilobytes
	var names []string
	for _, file := range t.Names(dir) {
		if strings.HasPrefix(file, ".") || t.Exists(filepath.Join(dir, "disable", file)) {
			continue // the parser skips these, too
		}
		text, err := t.ReadFile(filepath.Join(dir, file), maxProfile)
		if err != nil {
			continue // a directory, or a link to nothing
		}
		for line := range strings.Lines(string(text)) {
			m := profileHead.FindStringSubmatch(line)
			if m == nil || strings.Contains(m[1]+m[2], "@{") {
				continue
			}
			names = append(names, strings.TrimSuffix(strings.Trim(m[1]+m[2], `"`), "{"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ParseLoadedProfiles returns the names in the kernel's list of AppArmor profiles, whose lines are "NAME (MODE)".
func ParseLoadedProfiles(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if i := strings.LastIndex(line, " ("); i > 0 {
			names = append(names, line[:i])
		}
	}
	return names
}
