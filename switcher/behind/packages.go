package behind

import (
	"crypto/md5" // what dpkg compares with
	"encoding/hex"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// packages is what dpkg knows about a host: which package a path below /etc or a unit is from, and the sums of
// configuration files as they were installed. It is empty on a host without dpkg.
type packages struct {
	owner map[string]string
	sums  map[string]string
}

const (
	maxStatus = 64 << 20 // of dpkg, in bytes; a desktop has five megabytes
	maxList   = 16 << 20 // of the files in one package, in bytes
)

// readPackages reads the databases of dpkg and ucf.
func readPackages(host rootfs.Dir) packages {
	p := packages{owner: map[string]string{}, sums: map[string]string{}}
	const info = "/var/lib/dpkg/info"
	for _, name := range host.Names(info) {
		pkg, isList := strings.CutSuffix(name, ".list")
		if !isList {
			continue
		}
		text, _ := host.ReadFile(path.Join(info, name), maxList)
		pkg, _, _ = strings.Cut(pkg, ":") // the architecture
		for line := range strings.Lines(string(text)) {
			file := strings.TrimPrefix(strings.TrimSpace(line), "/usr/lib/systemd/system/")
			switch file = strings.TrimSpace(file); {
			case strings.HasPrefix(file, "/etc/"):
				p.owner[file] = pkg
			case file != strings.TrimSpace(line), strings.HasPrefix(file, "/lib/systemd/system/"):
				p.owner[path.Join("/usr/lib/systemd/system", path.Base(file))] = pkg
			}
		}
	}
	status, _ := host.ReadFile("/var/lib/dpkg/status", maxStatus)
	for line := range strings.Lines(string(status)) { // of Conffiles: " /etc/file SUM"
		if fields := strings.Fields(line); strings.HasPrefix(line, " /etc/") && len(fields) >= 2 {
			p.sums[fields[0]] = fields[1]
		}
	}
	hashes, _ := host.ReadFile("/var/lib/ucf/hashfile", maxStatus)
	for line := range strings.Lines(string(hashes)) { // "SUM  /etc/file"
		if fields := strings.Fields(line); len(fields) == 2 {
			p.sums[fields[1]] = fields[0]
		}
	}
	return p
}

// split divides paths below /etc, relative to it, into those that were changed or added here and those that are as
// packages installed them. A changed path that ends in "/" is a directory with everything below it.
func (p packages) split(host rootfs.Dir, names []string) (changed, packaged []string) {
	changed, packaged = []string{}, []string{}
	for _, name := range names {
		c, asInstalled := p.splitOne(host, strings.TrimSuffix(name, "/"))
		changed = append(changed, c...)
		if asInstalled {
			packaged = append(packaged, name)
		}
	}
	for _, list := range []*[]string{&changed, &packaged} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return changed, packaged
}

// splitOne returns what is changed at and below a path, and whether anything there is as it was installed.
func (p packages) splitOne(host rootfs.Dir, name string) (changed []string, asInstalled bool) {
	full := path.Join("/etc", name)
	st, err := os.Lstat(filepath.Join(string(host), full))
	if err != nil {
		return nil, false
	}
	if !st.IsDir() {
		if p.unchanged(host, full, st) {
			return nil, true
		}
		return []string{name}, false
	}
	children := host.Names(full)
	for _, child := range children {
		c, installed := p.splitOne(host, path.Join(name, child))
		changed, asInstalled = append(changed, c...), asInstalled || installed
	}
	if !asInstalled && len(changed) > 0 && p.owner[full] == "" { // nothing in it is from a package
		return []string{name + "/"}, false
	}
	if len(children) == 0 {
		asInstalled = p.owner[full] != ""
		if !asInstalled {
			changed = []string{name + "/"}
		}
	}
	return changed, asInstalled
}

// generated are the paths below /etc that packages make when they are installed: they are in no list, and nobody
// changed them.
var generated = []string{
	"/etc/alternatives/*", "/etc/rc?.d/*", "/etc/ssl/certs/*", "/etc/ld.so.cache", "/etc/*-", "/etc/.pwd.lock",
	"/etc/mtab", "/etc/.updated", "/etc/ca-certificates.conf", "/etc/ca-certificates.conf.*", "/etc/environment",
	"/etc/motd", "/etc/issue*", "/etc/inputrc", "/etc/profile", "/etc/apparmor.d/local/*", "/etc/ssl/openssl.cnf",
	"/etc/systemd/system/snap.*", "/etc/systemd/system/snap-*.mount", "/etc/systemd/system/*.wants/snap.*",
	"/etc/systemd/system/*.wants/snap-*.mount",
}

// isGenerated reports whether packages make a path below /etc when they are installed.
func isGenerated(full string) bool {
	return slices.ContainsFunc(generated, func(pattern string) bool {
		ok, _ := path.Match(pattern, full)
		return ok
	})
}

// unchanged reports whether a file or link is as packages installed it.
func (p packages) unchanged(host rootfs.Dir, full string, st os.FileInfo) bool {
	if sum, known := p.sums[full]; known && st.Mode().IsRegular() {
		text, err := host.ReadFile(full, maxList)
		now := md5.Sum(text)
		return err == nil && hex.EncodeToString(now[:]) == sum
	}
	if st.Mode()&os.ModeSymlink != 0 {
		if target, _ := os.Readlink(filepath.Join(string(host), full)); ofPackage(target, full) {
			return true // as links do that enable a unit
		}
	}
	if p.owner[full] != "" {
		return true
	}
	return len(p.owner) > 0 && isGenerated(full)
}

// ofPackage reports whether a link at a path leads to what packages install outside of /etc.
func ofPackage(target, from string) bool {
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(from), target)
	}
	return isWithinAny(target, ofPackages) && !isWithin(target, "/usr/local")
}
