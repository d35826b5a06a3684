// Package paths says which paths below /etc a pattern stands for. Paths and patterns are relative to /etc, and a
// pattern for a directory includes everything below it.
package paths

import (
	"path"
	"strings"
)

// List is a list of patterns, which must be valid for path.Match.
type List []string

// Has reports whether a path, or a directory above it, matches the list.
func (l List) Has(name string) bool {
	for ; name != "." && name != "/"; name = path.Dir(name) {
		for _, pattern := range l {
			if ok, _ := path.Match(pattern, name); ok { // no pattern is bad, see List
				return true
			}
		}
	}
	return false
}

// IsUnder reports whether a path is dir or below it.
func IsUnder(name, dir string) bool {
	return name == dir || dir == "." || strings.HasPrefix(name, dir+"/")
}
