package rootfs

import (
	"path/filepath"
	"slices"
	"strings"
)

// sysctlRules are the keys in sysctl.d(5) files, as paths below /proc/sys, which may be patterns.
type sysctlRules struct {
	// set are the keys that get a value. excluded are left out of what a pattern matches.
	set, excluded []string
}

// ParseSysctl reads the files of a sysctl.d. Values are ignored.
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
			case assigned: // with a dash, an error is ignored
				r.set = append(r.set, name)
			case dashed:
				r.excluded = append(r.excluded, name)
			}
		}
	}
	return r
}

// sysctlPath returns a key as a path. If the first separator is a dot, dots and slashes are exchanged.
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

// matches reports whether the rules set the key at path.
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

// Keys returns the keys that the rules set and that exist below dir, which is /proc/sys.
func (r sysctlRules) Keys(dir string) []string {
	var keys []string
	for _, pattern := range r.set {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // an invalid pattern matches nothing
		for _, p := range found {
			if rel, err := filepath.Rel(dir, p); err == nil && r.matches(rel) {
				keys = append(keys, rel)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
