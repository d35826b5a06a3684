package config

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/behind"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Warnings returns what is valid in the configuration of a tree and most likely a mistake, each with its file and line.
// Adopts is whether the next image is the first one, which adopts paths.
func (c *Config) Warnings(tree string, adopts bool) []string {
	warnings := []string{}
	warn := func(key, format string, args ...any) {
		warnings = append(warnings, c.Where(key)+fmt.Sprintf(format, args...))
	}
	if image := c.Source.Image; image != "" && !hasTag(image) {
		warn("source.image", "[source] image: %q names neither a tag nor a digest, so nothing can be fetched; add one, "+
			"as in %q", image, image+":stable")
	}
	for _, class := range []struct{ dir, means string }{
		{"", "no root becomes good with it"}, {"required.d", "no root becomes good with it"}, {"wanted.d", "it is skipped"},
	} {
		for _, file := range brokenChecks(filepath.Join(tree, "etc/updatectl/health.d", class.dir)) {
			warnings = append(warnings, fmt.Sprintf("%s: it is not executable; %s", file, class.means))
		}
	}
	if adopts {
		for _, pattern := range c.State.Adopt {
			name := strings.TrimPrefix(pattern, "/etc/")
			if found, _ := filepath.Glob(filepath.Join(tree, "etc", name)); len(found) == 0 {
				warn("state.adopt", "[state] adopt: there is no /etc/%s on this host", name)
			}
		}
	}
	for _, unit := range c.Health.Active {
		if !hasUnit(rootfs.Dir(tree), unit) {
			warn("health.active", "[health] active: there is no unit %s on this host; an image without it is not healthy",
				unit)
		}
	}
	for _, unit := range c.KeptUnits() {
		if !hasUnit(rootfs.Dir(tree), unit) {
			warn("keep.unit", "[[keep]] unit: there is no unit %s on this host", unit)
		}
	}
	if filters := ending.PacketFilters(); c.Switch.HoldFirewall && !slices.ContainsFunc(filters,
		func(unit string) bool { return hasUnit(rootfs.Dir(tree), unit) }) {
		warn("switch.hold-firewall", "[switch] hold-firewall: no packet filter is on this host that updatectl knows: %s",
			strings.Join(filters, ", "))
	}
	text, _ := rootfs.Dir(tree).ReadFile(behind.HostOnlyFile, maxConfig)
	if _, err := behind.ParseHostOnly(string(text)); err != nil {
		warnings = append(warnings, fmt.Sprintf("%s: %v", behind.HostOnlyFile, err))
	}
	return warnings
}

// brokenChecks returns the files in a directory that the health gate takes for check programs and cannot run.
func brokenChecks(dir string) (broken []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		forPeople := strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "README")
		st, err := os.Stat(file)
		if err == nil && st.Mode().IsRegular() && st.Size() > 0 && st.Mode()&0o111 == 0 && !forPeople {
			broken = append(broken, file)
		}
	}
	return broken
}

// hasTag reports whether a reference names a tag or a digest. A layout may have one image only.
func hasTag(reference string) bool {
	last := reference[strings.LastIndex(reference, "/")+1:]
	return strings.HasPrefix(reference, "oci:") || strings.HasPrefix(reference, "oci-archive:") ||
		strings.Contains(last, ":") || strings.Contains(reference, "@")
}

// unitPlaces are where units lie. Those of /run are made at run time, such as from scripts of SysV init.
var unitPlaces = []string{
	"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
	"/lib/systemd/system", "/run/systemd/generator", "/run/systemd/generator.late", "/run/systemd/transient",
}

// hasUnit reports whether a tree has a unit, or the template of an instance.
func hasUnit(tree rootfs.Dir, unit string) bool {
	names := []string{unit}
	if prefix, _, isInstance := strings.Cut(unit, "@"); isInstance {
		names = append(names, prefix+"@"+path.Ext(unit))
	}
	return slices.ContainsFunc(unitPlaces, func(dir string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return tree.Exists(path.Join(dir, name)) })
	}) || tree.Exists(path.Join("/etc/init.d", strings.TrimSuffix(unit, ".service")))
}
