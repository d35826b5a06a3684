// Package behind answers what a host root has and a new root does not get: services that would not run there, and files
// outside of kept state. It promises to write nothing, to follow no link out of a tree that it reads, and to mount
// nothing on the way.
package behind

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Root is a host root, and what a new root has of it.
type Root struct {
	// Host is the tree of the host root.
	Host rootfs.Dir
	// Image is the tree of the image, "" when none is known: then it counts as having what packages install.
	Image rootfs.Dir
	// Kept lists the state paths; Mounts the mount points that the new root mounts itself.
	Kept, Mounts []string
	// Gets reports whether the new /etc has the host's version of a path, which is relative to /etc.
	Gets func(name string) bool
	// LeftUsers and LeftGroups are the names of those that stay behind.
	LeftUsers, LeftGroups []string
}

// Report is what stays behind, and who comes along.
type Report struct {
	// Users and Groups are those of the host that come along, and the image does not have.
	Users, Groups []string
	// Services would not run in the new root.
	Services []Service
	// Paths are files and directories outside of kept state that the image does not have.
	Paths []Path
	// Changed are the paths below /etc, relative to it, that stay behind and were changed or added on this host; Packaged
	// are those that are as the host's packages installed them.
	Changed, Packaged []string
}

// Find returns what stays behind. Running are the services that have a process now, the local list of units is that of
// [ParseHostOnly], left are paths below /etc that the new root does not get, and patience bounds the time that files
// are measured.
func (r Root) Find(running map[string]Running, local []HostOnly, left []string, patience time.Duration) Report {
	packages := readPackages(r.Host)
	rep := Report{Services: r.services(running, local, packages), Paths: r.paths(patience)}
	rep.Users = r.newNames("/etc/passwd", r.LeftUsers)
	rep.Groups = r.newNames("/etc/group", r.LeftGroups)
	rep.Changed, rep.Packaged = packages.split(r.Host, left)
	return rep
}

// isWithin reports whether a clean path is dir or below it.
func isWithin(p, dir string) bool { return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/") }

// isWithinAny reports whether a clean path is one of the directories or below one.
func isWithinAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return isWithin(p, dir) })
}

// ofPackages are the directories that packages install into.
var ofPackages = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// ofKernel are the directories that the kernel or systemd fill anew.
var ofKernel = []string{"/dev", "/proc", "/sys", "/run", "/tmp"}

// has reports whether the new root has what the host root has at an absolute path.
func (r Root) has(p string) bool {
	p = path.Clean(p)
	switch name, inEtc := strings.CutPrefix(p, "/etc/"); {
	case isWithinAny(p, r.Kept), isWithinAny(p, r.Mounts), isWithinAny(p, ofKernel):
		return true
	case inEtc && r.Gets(name):
		return true
	case r.Image == "":
		return isWithinAny(p, ofPackages) && !isWithin(p, "/usr/local") && r.Host.Exists(p)
	}
	return r.Image.Exists(p)
}

// maxTable bounds a user database in bytes.
const maxTable = 16 << 20

// newNames returns the names in a user database of the host that the image does not have, without those that stay
// behind.
func (r Root) newNames(table string, left []string) []string {
	own := map[string]bool{}
	if r.Image != "" {
		text, _ := r.Image.ReadFile(table, maxTable)
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, ":")
			own[name] = true
		}
	}
	text, _ := r.Host.ReadFile(table, maxTable)
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, isEntry := strings.Cut(line, ":")
		if isEntry && name != "" && !own[name] && !slices.Contains(left, name) && !strings.ContainsAny(name[:1], "+-#") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
