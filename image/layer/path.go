package layer

import (
	"fmt"
	"strings"
)

// splitPath splits the name of a tar entry, or the target of a hard link, into its components. A leading "/" or "./"
// is ignored, because some tools write it; ".." is refused, because no honest tool does. The root directory has no
// components.
func splitPath(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, fmt.Errorf("%w: a path has %d bytes, more than %d", ErrLimit, len(name), maxPath)
	}
	if strings.ContainsAny(name, "\x00\n") {
		// Other programs take a NUL, and tools that read lists of files take a new line, for the end of the name.
		return nil, fmt.Errorf("%w: the path %q contains a NUL or a new line", ErrLayer, name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, fmt.Errorf("%w: there is a .. in the path %q", ErrLayer, name)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}
