package etc

import (
	"path"
	"strings"
)

// adoptList is a list of patterns that newAdoptList has checked.
type adoptList []string

// has reports whether a path, or a directory above it, matches the list.
func (l adoptList) has(name string) bool {
	for ; name != "."; name = path.Dir(name) {
		for _, pattern := range l {
			if ok, _ := path.Match(pattern, name); ok { // checked by newAdoptList
				return true
			}
		}
	}
	return false
}

// isUnder reports whether a path is dir or below it.
func isUnder(name, dir string) bool {
	return name == dir || dir == "." || strings.HasPrefix(name, dir+"/")
}
