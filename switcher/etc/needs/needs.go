// Package needs says what the files of a host need of the root that they are in, where a missing part would close a way
// in, or open one: modules of PAM, sources of names, programs of sshd, packet filters and a network manager.
package needs

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/etc/sshd"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// need is something that a root must have for a file of the host to work: a module of PAM ("pam_x.so"), a source of
// names ("libnss_x.so.2"), a unit, or a program by its absolute path.
type need struct{ what, file string }

// inventory says whether a tree has something.
type inventory func(what string) bool

// lacking returns what the host's files need, the host has and the new root has not. Texts are the files of the host
// that stay, by their path below /etc. Units are those that the host starts and that stay enabled. What the host itself
// lacks never worked, so it does not count. Of network managers, one is enough.
func lacking(texts map[string][]byte, units []string, host, image inventory) []need {
	var all []need
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		switch dir := path.Dir(file); {
		case dir == "pam.d":
			all = append(all, pamNeeds(file, texts[file])...)
		case file == "nsswitch.conf":
			all = append(all, nssNeeds(file, texts[file])...)
		case file == "ssh/sshd_config" || dir == "ssh/sshd_config.d":
			for _, program := range sshd.Parse(texts[file]).Runs {
				all = append(all, need{program, file})
			}
		}
	}
	for _, unit := range units {
		all = append(all, need{unit, "systemd/system"})
	}
	var missing []need
	seen := map[string]bool{}
	for _, n := range append(all, managerNeeds(texts, host, image)...) {
		if !seen[n.what] && host(n.what) && !image(n.what) {
			missing = append(missing, n)
		}
		seen[n.what] = true
	}
	return missing
}

// pamNeeds returns the modules that a file of pam.d(5) names. A line that begins with "-" and an optional module may be
// missing without harm.
func pamNeeds(file string, text []byte) []need {
	var all []need
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		rest = strings.TrimSpace(rest)
		control, after, _ := strings.Cut(rest, " ")
		if strings.HasPrefix(rest, "[") {
			control, after, _ = strings.Cut(rest, "]")
		}
		fields := strings.Fields(after)
		if len(fields) == 0 || kind[:1] == "-" || slices.Contains([]string{"optional", "include", "substack"}, control) {
			continue
		}
		if module := path.Base(fields[0]); strings.HasSuffix(module, ".so") {
			all = append(all, need{module, file})
		}
	}
	return all
}

// nssNeeds returns the sources that an nsswitch.conf(5) names for users, groups and their rights. The C library has
// files and dns built in; systemd's own source only knows users that services make for themselves.
func nssNeeds(file string, text []byte) []need {
	var all []need
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		database, sources, _ := strings.Cut(line, ":")
		if !slices.Contains([]string{"passwd", "group", "shadow", "gshadow", "initgroups", "netgroup", "sudoers"},
			strings.TrimSpace(database)) {
			continue
		}
		for _, source := range strings.Fields(sources) {
			if !strings.ContainsAny(source, "[]=/") && !slices.Contains([]string{"files", "dns", "systemd"}, source) {
				all = append(all, need{"libnss_" + source + ".so.2", file})
			}
		}
	}
	return all
}

// managers are the network managers, with where their configuration lies and what shows that a root has one.
var managers = []struct {
	dirs  paths.List
	shows string
}{
	{paths.List{"systemd/network"}, "systemd-networkd.service"},
	{paths.List{"netplan"}, "/usr/sbin/netplan"},
	{paths.List{"NetworkManager/system-connections"}, "NetworkManager.service"},
	{paths.List{Interfaces, "network/interfaces.d"}, "/usr/sbin/ifup"},
}

// managerNeeds returns the network managers that the host has a configuration for, if the image has none of them.
func managerNeeds(texts map[string][]byte, host, image inventory) []need {
	var all []need
	for _, m := range managers {
		for _, file := range slices.Sorted(maps.Keys(texts)) {
			if !m.dirs.Has(file) || file == Interfaces && !ConfiguresInterface(texts[file]) || !host(m.shows) {
				continue
			}
			if image(m.shows) {
				return nil
			}
			all = append(all, need{m.shows, file})
			break
		}
	}
	return all
}

// NetworkDirs are where the network managers look for what they configure.
var NetworkDirs = networkDirs()

func networkDirs() (all paths.List) {
	for _, m := range managers {
		all = append(all, m.dirs...)
	}
	return all
}

// Files are the files that [Lacking] judges.
var Files = append(paths.List{"pam.d", "nsswitch.conf", "ssh/sshd_config", "ssh/sshd_config.d"}, NetworkDirs...)

// Units are the links that start a unit which guards or opens a way in. Network managers are judged by their
// configuration.
var Units = paths.List{
	"systemd/system/*.wants/nftables.service", "systemd/system/*.wants/ufw.service",
	"systemd/system/*.wants/firewalld.service", "systemd/system/*.wants/netfilter-persistent.service",
	"systemd/system/*.wants/iptables.service", "systemd/system/*.wants/ip6tables.service",
	"systemd/system/*.wants/wg-quick@*", "systemd/system/*.wants/sssd*", "systemd/system/*.wants/nslcd.service",
}

// Lacking returns what a root lacks of what the host's files need: texts are those that stay, by their path below /etc,
// units are those that the host starts and that stay enabled. Each is named with the file that names it and, where the
// host knows it, the package.
func Lacking(image rootfs.Dir, texts map[string][]byte, units []string, before rootfs.Dir) []string {
	var sentences []string
	for _, n := range lacking(texts, units, inventoryOf(before), inventoryOf(image)) {
		sentence := fmt.Sprintf("%s, which /etc/%s names", n.what, n.file)
		if n.file == "systemd/system" {
			sentence = n.what + ", which this host starts"
		}
		if pkg := packageOf(before, n.what); pkg != "" {
			sentence += " (package " + pkg + ")"
		}
		sentences = append(sentences, sentence)
	}
	return sentences
}

// inventoryOf returns what a tree has.
func inventoryOf(tree rootfs.Dir) inventory {
	libraries := tree.Libraries()
	return func(what string) bool {
		switch ext := path.Ext(what); {
		case path.IsAbs(what):
			return tree.Exists(what)
		case ext == ".service" || ext == ".socket":
			template, _, isInstance := strings.Cut(what, "@")
			return tree.Exists(path.Join("/usr/lib/systemd/system", what)) ||
				isInstance && tree.Exists(path.Join("/usr/lib/systemd/system", template+"@"+ext))
		}
		return slices.ContainsFunc(libraries, func(dir string) bool {
			return tree.Exists(path.Join(dir, what)) || tree.Exists(path.Join(dir, "security", what))
		})
	}
}

// maxPackageList bounds the list in bytes of the files in one Debian package.
const maxPackageList = 1 << 20

// packageOf returns the Debian package that has a file with this name or path, "" when it is not known.
func packageOf(tree rootfs.Dir, what string) string {
	const lists = "/var/lib/dpkg/info"
	for _, name := range tree.Names(lists) {
		pkg, isList := strings.CutSuffix(name, ".list")
		if !isList {
			continue
		}
		text, _ := tree.ReadFile(path.Join(lists, name), maxPackageList)
		if bytes.Contains(text, []byte(path.Join("/", what)+"\n")) {
			pkg, _, _ = strings.Cut(pkg, ":") // the architecture
			return pkg
		}
	}
	return ""
}

// Interfaces is the file of ifupdown, which Debian installs with nothing but the loopback interface in it.
const Interfaces = "network/interfaces"

// ConfiguresInterface reports whether an interfaces(5) configures an interface other than lo. Files that it includes
// count by themselves.
func ConfiguresInterface(text []byte) bool {
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "iface" && fields[1] != "lo" {
			return true
		}
	}
	return false
}
