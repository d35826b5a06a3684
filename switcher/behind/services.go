package behind

import (
	"cmp"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Service is a service, socket, timer or path unit of the host root that would not run in the new root.
type Service struct {
	Name string
	// Why is what the new root lacks, in words.
	Why string
	// Local is whether somebody added the unit here; Enabled whether it starts with the host root; Running whether it has
	// a process now. Ports are those that it listens on, such as "tcp:80".
	Local   bool
	Enabled bool
	Running bool
	Ports   []string
	// Expected is why nobody misses it, from the list of units that serve the host root only; "" if somebody could.
	Expected string
	// Package is the Debian package that it is from, "" when it is not known.
	Package string
	// Adopt lists its paths below /etc that the new root does not get, and Programs what it starts and the new root lacks.
	Adopt    []string
	Programs []string
}

// Missed reports whether somebody would miss the service: one that was added here and enabled, or one that serves a
// port now. All others are only listed: most of what a distribution enables nobody has chosen, and what was only
// started does not outlive a full reboot either.
func (s Service) Missed() bool {
	return s.Expected == "" && (s.Local && s.Enabled || len(s.Ports) > 0 && (s.Enabled || s.Running))
}

// unitDirs are where units lie, the first one wins; localUnitDirs are those of them that only people write to.
var (
	unitDirs      = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"}
	localUnitDirs = unitDirs[:2]
)

// kinds are the endings of units that run something, or have it run.
var kinds = []string{".service", ".socket", ".timer", ".path"}

// finder finds the services of a host root that would not run in a new root.
type finder struct {
	Root
	packages packages
	links    map[string][]string // of the host root, see enabled
}

// services returns the services that would not run in the new root, those that somebody would miss first.
func (r Root) services(running map[string]Running, list []HostOnly, packages packages) []Service {
	f := finder{r, packages, enabled(r.Host)}
	names := slices.Concat(slices.Collect(maps.Keys(f.links)), slices.Collect(maps.Keys(running)))
	slices.Sort(names)
	found := []Service{}
	for _, name := range slices.Compact(names) {
		if !slices.Contains(kinds, path.Ext(name)) || strings.HasPrefix(name, "updatectl") {
			continue
		}
		run, runs := running[name]
		s := f.judge(Service{Name: name, Running: runs, Enabled: len(f.links[name]) > 0, Ports: run.Ports})
		if s.Why == "" {
			continue
		}
		slices.Sort(s.Ports)
		s.Ports = append([]string{}, slices.Compact(s.Ports)...)
		s.Expected = f.expected(name, list)
		found = append(found, s)
	}
	slices.SortStableFunc(found, func(a, b Service) int { return cmp.Compare(rank(a), rank(b)) })
	return found
}

// rank orders services: those that somebody would miss, others, and those that nobody does.
func rank(s Service) int {
	switch {
	case s.Missed():
		return 0
	case s.Expected == "":
		return 1
	}
	return 2
}

// enabled returns the links that start units in a tree, by unit: absolute paths.
func enabled(tree rootfs.Dir) map[string][]string {
	links := map[string][]string{}
	for _, dir := range unitDirs {
		for _, wants := range tree.Names(dir) {
			if ext := path.Ext(wants); ext != ".wants" && ext != ".requires" {
				continue
			}
			for _, name := range tree.Names(path.Join(dir, wants)) {
				links[name] = append(links[name], path.Join(dir, wants, name))
			}
		}
	}
	return links
}

// templateOf returns the name of the file that a unit is read from: a template for an instance, otherwise the unit
// itself.
func templateOf(name string) string {
	if prefix, _, isInstance := strings.Cut(name, "@"); isInstance {
		return prefix + "@" + path.Ext(name)
	}
	return name
}

// fileOf returns where the host has a unit or the script of one, "" for one that is made at run time. Target is where
// it leads, "" for a file.
func (f finder) fileOf(name string) (file, target string) {
	var places []string
	for _, dir := range unitDirs {
		places = append(places, path.Join(dir, name), path.Join(dir, templateOf(name)))
	}
	for _, file := range append(places, path.Join(scripts, strings.TrimSuffix(name, ".service"))) {
		if st, err := os.Lstat(filepath.Join(string(f.Host), file)); err == nil && !st.IsDir() {
			if st.Mode()&os.ModeSymlink != 0 {
				target, _ = os.Readlink(filepath.Join(string(f.Host), file))
			}
			return file, target
		}
	}
	return "", ""
}

// scripts are where services of SysV init lie, which systemd makes units of.
const scripts = "/etc/init.d"

// judge completes a service. Why stays "" if it would run in the new root, or cannot run here.
func (f finder) judge(s Service) Service {
	s.Adopt, s.Programs = []string{}, []string{}
	file, target := f.fileOf(s.Name)
	if file == "" || target == "/dev/null" || isWithin(file, scripts) && f.has(file) {
		return s // made at run time, masked, or made from a script that stays
	}
	s.Package = f.packages.owner[file]
	s.Local = isWithinAny(file, localUnitDirs) && s.Package == "" && !isGenerated(file) &&
		!(target != "" && ofPackage(target, file))
	text, _ := f.Host.ReadFile(file, maxUnit)
	u := parseUnit(text)
	if path.Ext(s.Name) == ".socket" && s.Enabled {
		s.Ports = u.ports
	}
	hasUnit := f.hasUnit(s.Name)
	if s.Local && (!hasUnit || f.has(file)) {
		s.Programs = f.lackedPrograms(append(u.programs, f.triggered(s.Name, u)...))
	}
	switch {
	case !hasUnit:
		s.Why = "its unit is not in the new root"
	case len(s.Programs) > 0:
		s.Why = "it would fail: the new root lacks " + strings.Join(s.Programs, ", ")
	case s.Enabled && !f.starts(s.Name):
		s.Why = "it is not enabled in the new root"
	}
	if s.Local || hasUnit {
		s.Adopt = f.toAdopt(file, f.links[s.Name])
	}
	return s
}

// lackedPrograms returns those paths that the host has and the new root does not have.
func (f finder) lackedPrograms(programs []string) []string {
	lacked := []string{}
	for _, p := range programs {
		if f.Host.Exists(p) && !f.has(p) && !slices.Contains(lacked, p) {
			lacked = append(lacked, p)
		}
	}
	return lacked
}

// toAdopt returns the paths of a service below /etc that the new root does not get, relative to /etc.
func (f finder) toAdopt(file string, links []string) []string {
	adopt := []string{}
	for _, p := range append([]string{file, file + ".d"}, links...) {
		_, err := os.Lstat(filepath.Join(string(f.Host), p)) // be it a link that leads nowhere
		if name, inEtc := strings.CutPrefix(p, "/etc/"); inEtc && err == nil && !f.Gets(name) {
			adopt = append(adopt, name)
		}
	}
	return adopt
}

// hasUnit reports whether the new root has a unit.
func (f finder) hasUnit(name string) bool {
	return slices.ContainsFunc(unitDirs, func(dir string) bool {
		return f.has(path.Join(dir, name)) || f.has(path.Join(dir, templateOf(name)))
	})
}

// starts reports whether the new root has a unit and starts it, or its socket, by a link of its own or of the host.
func (f finder) starts(name string) bool {
	if !f.hasUnit(name) {
		return false
	}
	if f.Image == "" && f.Host.Exists(path.Join(unitDirs[2], templateOf(name))) {
		return true // the image decides
	}
	own := map[string][]string{}
	if f.Image != "" {
		own = enabled(f.Image)
	}
	return slices.ContainsFunc([]string{name, strings.TrimSuffix(name, path.Ext(name)) + ".socket"}, func(n string) bool {
		return len(own[n]) > 0 || slices.ContainsFunc(f.links[n], f.has)
	})
}

// triggered returns the programs of the service that a local timer, socket or path unit starts, and its unit.
func (f finder) triggered(name string, u unit) []string {
	if path.Ext(name) == ".service" {
		return nil
	}
	file, _ := f.fileOf(cmp.Or(u.triggers, strings.TrimSuffix(name, path.Ext(name))+".service"))
	if !isWithinAny(file, localUnitDirs) {
		return nil
	}
	text, _ := f.Host.ReadFile(file, maxUnit)
	return append(parseUnit(text).programs, file)
}
