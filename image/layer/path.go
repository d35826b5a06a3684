package layer

import (
	"fmt"
	"strings"
)

// split reads the name of a tar entry, or of a hard link's target, into its components. A leading "/" or "./" is what
// some tools write and means nothing; ".." has no honest use and is refused rather than resolved. The root itself has
// no components.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, fmt.Errorf("%w: path of %d bytes, at most %d are possible", ErrLimit, len(name), maxPath)
	}
	if strings.ContainsAny(name, "\x00\n") {
		// A NUL ends the name for everybody else, and a new line ends it for every tool that reads lists of files.
		return nil, fmt.Errorf("%w: path %q has a NUL or a new line in it", ErrLayer, name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, fmt.Errorf("%w: path %q has .. in it", ErrLayer, name)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}
