package layer

import (
	"errors"
	"fmt"
	"strings"
)

// CheckPath returns the error with which a host refuses a layer that has this path, which begins with "/". It is an
// [ErrLayer].
func CheckPath(path string) error {
	parts, err := splitPath(path)
	for _, name := range parts {
		err = errors.Join(err, checkLength(name))
	}
	return err
}

// checkLength refuses a name that no file can have.
func checkLength(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%w: a name has %d bytes, more than %d", ErrLimit, len(name), maxName)
	}
	return nil
}

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
