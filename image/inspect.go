package image

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/store"
)

const (
	// maxOSRelease bounds os-release, in bytes. Real ones have half a kilobyte.
	maxOSRelease = 64 << 10
	agentPath    = "usr/bin/updatectl"
	confirmLink  = "usr/lib/systemd/system/multi-user.target.wants/updatectl-confirm.service"
	agentUnit    = "usr/lib/systemd/system/updatectl-arm.service"
	modulesPath  = "usr/lib/modules"
)

// Inits are the programs that systemd looks for in a new root, in this order. One of them must be there. The paths are
// relative to the root.
var Inits = []string{"usr/lib/systemd/systemd", "sbin/init"}

// osReleases are the files by which systemd recognises an OS tree. One of them must be there.
var osReleases = []string{"etc/os-release", "usr/lib/os-release"}

// topDirs are the directories that must exist in a read-only root, because nothing can be mounted where there are
// none.
var topDirs = []string{"dev", "etc", "home", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var"}

// systemdLibrary matches the library whose name contains systemd's version, as in libsystemd-shared-257.so,
// -257.9-1~deb13u1.so or -252-51.el9.so.
var systemdLibrary = regexp.MustCompile(`^libsystemd-shared-([0-9]+)([^0-9].*)?\.so$`)

// inspect checks that systemd would switch to the finished tree, and returns what the agent needs to know about it.
func (s *stager) inspect() (store.Info, error) {
	info := store.Info{
		Digest:   s.img.Verified.Digest(),
		Version:  s.img.Version(),
		Vouchers: s.img.Verified.Vouchers(),
		Platform: store.Platform{
			OS:           s.img.Config.OS,
			Architecture: s.img.Config.Architecture,
			Variant:      s.img.Config.Variant,
		},
		Systemd: systemdVersion(s.tree),
		// systemd has a program of that name, too, which some distributions ship. Ours comes with its units.
		HasAgent: isProgram(s.tree.Lookup(agentPath)) && s.tree.Lookup(agentUnit) != nil &&
			s.tree.Lookup(confirmLink) != nil,
		Kernels: kernels(s.tree), KernelMin: s.img.KernelMin(),
		Missing: missing(s.tree),
	}
	if info.Init = findInit(s.tree); info.Init == "" {
		return info, fmt.Errorf("%w: the image has no init: neither /%s nor /%s is an executable file", ErrNotBootable,
			Inits[0], Inits[1])
	}
	if err := s.readOSRelease(&info); err != nil {
		return info, err
	}
	// IMAGE_VERSION is the version of the image, VERSION_ID that of the distribution (os-release(5)).
	info.Version = cmp.Or(info.Version, info.OS.ImageVersion, info.OS.VersionID)
	return info, s.measure(&info)
}

// findInit returns the path of the program that becomes PID 1, or "".
func findInit(t *layer.Tree) string {
	for _, path := range Inits {
		if isProgram(t.Lookup(path)) {
			return "/" + path
		}
	}
	return ""
}

func isProgram(n *layer.Inode) bool {
	return n != nil && n.IsRegular() && n.Size > 0 && n.Mode&0o111 != 0
}

// readOSRelease reads os-release into info.
func (s *stager) readOSRelease(info *store.Info) error {
	for _, path := range osReleases {
		n := s.tree.Lookup(path)
		if n == nil || !n.IsRegular() || n.Size == 0 || n.Size > maxOSRelease {
			continue
		}
		f, err := s.staging.Object(n.Object)
		if err != nil {
			return fmt.Errorf("cannot read /%s of the image: %w", path, err)
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		if err != nil {
			return fmt.Errorf("cannot read /%s of the image: %w", path, err)
		}
		info.OS = parseOSRelease(string(data))
		return nil
	}
	return fmt.Errorf("%w: the image has neither /%s nor /%s", ErrNotBootable, osReleases[0], osReleases[1])
}

// systemdVersion returns the major version of systemd in the tree, or 0 when it is not found.
func systemdVersion(t *layer.Tree) int {
	dirs := []string{"usr/lib/systemd", "usr/lib64/systemd"}
	if lib := t.Lookup("usr/lib"); lib != nil {
		for _, name := range lib.Names() { // Debian's multiarch directories
			dirs = append(dirs, "usr/lib/"+name+"/systemd")
		}
	}
	newest := 0
	for _, dir := range dirs {
		n := t.Lookup(dir)
		if n == nil {
			continue
		}
		for _, name := range n.Names() {
			if m := systemdLibrary.FindStringSubmatch(name); m != nil {
				version, _ := strconv.Atoi(m[1])
				newest = max(newest, version)
			}
		}
	}
	return newest
}

// kernels lists the kernel releases that have modules in the tree. A directory without modules.dep does not count:
// modprobe(8) needs it.
func kernels(t *layer.Tree) []string {
	modules := t.Lookup(modulesPath)
	if modules == nil {
		return nil
	}
	var releases []string
	for _, name := range modules.Names() {
		if dep := t.Lookup(modulesPath + "/" + name + "/modules.dep"); dep != nil && dep.IsRegular() {
			releases = append(releases, name)
		}
	}
	return releases
}

// missing lists the top-level directories that are missing, or are something else.
func missing(t *layer.Tree) []string {
	var names []string
	for _, name := range topDirs {
		if n := t.Lookup(name); n == nil || !n.IsDir() {
			names = append(names, name)
		}
	}
	return names
}

// measure counts names and bytes of content; an inode with several names counts once.
func (s *stager) measure(info *store.Info) error {
	seen := map[*layer.Inode]bool{}
	return s.tree.Walk(func(_ string, n *layer.Inode) error {
		info.Files++
		if n.Type() == unix.S_IFREG && !seen[n] {
			seen[n] = true
			info.Size += n.Size
		}
		return nil
	})
}
