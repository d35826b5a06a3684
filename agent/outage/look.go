package outage

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/listening"
)

// Observe returns what looks at this host: for the services of a list, and every open port. A look takes about a
// millisecond.
func Observe(services []string) func() Look { return observe("/sys/fs/cgroup", services) }

// observe finds the control groups of services below a hierarchy. They are where they were when the new root starts
// them again: systemd names them after the unit and its slice.
func observe(hierarchy string, services []string) func() Look {
	groups := map[string]string{}
	const deepest = 4 // system.slice, a slice of templates, the unit
	_ = filepath.WalkDir(hierarchy, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // it has just ended, or is a file
		}
		if slices.Contains(services, e.Name()) {
			groups[e.Name()] = path
		}
		below := strings.Count(strings.TrimPrefix(path, hierarchy), "/")
		if path != hierarchy && (below >= deepest || !strings.HasSuffix(path, ".slice")) {
			return fs.SkipDir
		}
		return nil
	})
	read, last := listening.Sockets(), []listening.Port(nil)
	return func() Look {
		if ports, err := read(); err == nil { // otherwise, as they were: a fault of this look closes no port
			last = ports
		}
		l := Look{Mount: mountOfRoot(), Ports: slices.Clone(last)}
		for _, name := range services {
			if path, ok := groups[name]; ok {
				if _, err := os.Lstat(path); err == nil {
					l.Services = append(l.Services, name)
				}
			}
		}
		return l
	}
}

// mountOfRoot returns the number of the mount at /, 0 when it is not known. It asks no disk and no server.
func mountOfRoot() int {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, "/", unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &s)
	if err != nil || s.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return int(s.Mnt_id)
}
