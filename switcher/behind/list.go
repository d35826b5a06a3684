package behind

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// HostOnlyFile is the host's own list of units that a first image may lack. The shipped one is configs/hostonly.conf.
const HostOnlyFile = "/etc/updatectl/hostonly.conf"

// HostOnly is a line of the list of units that a new root may lack: they serve the host root only, or another unit does
// the same.
type HostOnly struct {
	// Pattern matches names of units.
	Pattern string
	// Instead are the names of units that do the same. If there are some, one of them has to be in the new root.
	Instead []string
	// Why is the reason, for people.
	Why string
}

// ParseHostOnly returns the lines of such a list. The error names those that cannot be used.
func ParseHostOnly(list string) (units []HostOnly, err error) {
	for line := range strings.Lines(list) {
		text, why, _ := strings.Cut(line, "#")
		if strings.TrimSpace(text) == "" {
			continue
		}
		pattern, instead, _ := strings.Cut(text, "->")
		u := HostOnly{strings.TrimSpace(pattern), strings.Fields(instead), strings.TrimSpace(why)}
		if _, bad := path.Match(u.Pattern, ""); bad != nil || len(strings.Fields(u.Pattern)) != 1 || u.Why == "" {
			err = errors.Join(err, fmt.Errorf("%q is not a unit or a pattern, with a reason after #",
				strings.TrimSpace(line)))
			continue
		}
		units = append(units, u)
	}
	return units, err
}

// expected returns why nobody misses a unit in the new root, "" if somebody could.
func (f finder) expected(name string, list []HostOnly) string {
	for _, u := range list {
		if ok, _ := path.Match(u.Pattern, name); ok && (len(u.Instead) == 0 || slices.ContainsFunc(u.Instead, f.starts)) {
			return u.Why
		}
	}
	return ""
}
