package rootfs

import (
	"path/filepath"
	"slices"
	"strings"
)

// sysctlRules are what sysctl.d(5) files say, as paths below /proc/sys, which may be patterns.
type sysctlRules struct {
	// set are the keys that get a value; excluded are taken out of what patterns match.
	set, excluded []string
}

// ParseSysctl reads the files of a sysctl.d. Values do not matter here.
func ParseSysctl(texts []string) sysctlRules {
	var r sysctlRules
	for _, text := range texts {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || line[0] == ';' {
				continue
			}
			key, _, assigned := strings.Cut(line, "=")
			name, dashed := strings.CutPrefix(strings.TrimSpace(key), "-")
			name = sysctlPath(strings.TrimSpace(name))
			switch {
			case name == "" || !filepath.IsLocal(name):
			case assigned: // a dash before it: its failure does not count
				r.set = append(r.set, name)
			case dashed:
				r.excluded = append(r.excluded, name)
			}
		}
	}
	return r
}

// sysctlPath turns a key into a path: where the first separator is a dot, dots and slashes change places.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i < 0 || key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// matches tells whether the rules set the key at path.
func (r sysctlRules) matches(path string) bool {
	if slices.Contains(r.set, path) {
		return true
	}
	fits := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			ok, err := filepath.Match(p, path)
			return ok && err == nil
		})
	}
	return fits(r.set) && !fits(r.excluded)
}

// Keys lists the keys below dir (/proc/sys) that the rules set.
func (r sysctlRules) Keys(dir string) []string {
	var keys []string
	for _, pattern := range r.set {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // a pattern that is none matches nothing
		for _, p := range found {
			if rel, err := filepath.Rel(dir, p); err == nil && r.matches(rel) {
				keys = append(keys, rel)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
