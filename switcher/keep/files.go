package keep

import (
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Settings are what the files of a unit say: the values of each setting, as "Service.ExecStart". A setting that was
// reset has none.
type Settings map[string][]string

// last returns the value of a setting that has one, "" for none.
func (s Settings) last(key string) string {
	if values := s[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// words returns the words of all values of a setting, as dependencies are written.
func (s Settings) words(key string) []string {
	var words []string
	for _, value := range s[key] {
		words = append(words, strings.Fields(value)...)
	}
	return words
}

// isOn reports whether a setting is a true boolean, as systemd.syntax(7) has them.
func (s Settings) isOn(key string) bool {
	return slices.Contains([]string{"yes", "true", "on", "1"}, strings.ToLower(s.last(key)))
}

// Tree is a root with the unit files that it starts with.
type Tree struct {
	// Image is the tree of the image, or of the running root, which has all of it.
	Image rootfs.Dir
	// Systemd is the major version of its systemd.
	Systemd int
	// Host is the tree of the running root, and Gets reports whether the new /etc has its version of a path, which is
	// relative to /etc. Removed reports whether the new /etc lacks a path of the image. Without Gets, Image counts.
	Host          rootfs.Dir
	Gets, Removed func(name string) bool
}

// unitDirs are where units lie, the first one wins. Those made at run time are in neither root.
var unitDirs = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"}

// maxUnit bounds a unit file in bytes.
const maxUnit = 1 << 20

// at returns the tree that has the version of a path which counts, and whether there is any.
func (t Tree) at(p string) (rootfs.Dir, bool) {
	name, inEtc := strings.CutPrefix(p, "/etc/")
	if inEtc && t.Gets != nil {
		if t.Gets(name) {
			return t.Host, true
		}
		if t.Removed(name) {
			return "", false
		}
	}
	return t.Image, true
}

// read returns a file, and whether there is one. One that is masked (a link to /dev/null) is empty.
func (t Tree) read(p string) (string, bool) {
	tree, ok := t.at(p)
	if !ok {
		return "", false
	}
	text, err := tree.ReadFile(p, maxUnit)
	if err == nil {
		return string(text), true
	}
	return "", slices.Contains(tree.Names(path.Dir(p)), path.Base(p)) && !tree.HasDir(p)
}

// names returns the names in a directory.
func (t Tree) names(dir string) []string {
	names := t.Image.Names(dir)
	if strings.HasPrefix(dir, "/etc/") && t.Gets != nil {
		names = append(names, t.Host.Names(dir)...)
		slices.Sort(names)
		names = slices.DeleteFunc(slices.Compact(names), func(name string) bool {
			p := path.Join(dir, name)
			tree, ok := t.at(p)
			return !ok || !slices.Contains(tree.Names(dir), name)
		})
	}
	return names
}

// templateOf returns the name of the file that an instance is read from, "" for a unit that is none.
func templateOf(name string) string {
	prefix, instance, _ := strings.Cut(name, "@")
	if ext := path.Ext(name); strings.TrimSuffix(instance, ext) != "" {
		return prefix + "@" + ext
	}
	return ""
}

// Unit returns what the files of a unit say, and whether the root has the unit. A masked one it has not.
func (t Tree) Unit(name string) (Settings, bool) {
	text, found := "", false
	names := slices.DeleteFunc([]string{name, templateOf(name)}, func(n string) bool { return n == "" })
	for _, n := range names {
		for _, dir := range unitDirs {
			if text, found = t.read(path.Join(dir, n)); found {
				break
			}
		}
		if found {
			break
		}
	}
	if !found || strings.TrimSpace(text) == "" {
		return nil, false
	}
	s := Settings{}
	s.parse(text)
	for _, text := range t.dropIns(append(names, strings.TrimPrefix(path.Ext(name), "."))) {
		s.parse(text)
	}
	return s, true
}

// maxDropIns bounds the drop-ins of a unit that are read, in bytes. They have some hundred bytes each.
const maxDropIns = 4 << 20

// dropIns returns the texts of the drop-ins of some names, in the order of the names of their files. One in an earlier
// directory replaces those of the same name in later ones.
func (t Tree) dropIns(names []string) []string {
	first, size := map[string]string{}, 0
	var files []string
	for _, dir := range unitDirs {
		for _, name := range names {
			for _, file := range t.names(path.Join(dir, name+".d")) {
				if _, seen := first[file]; seen || !strings.HasSuffix(file, ".conf") || size > maxDropIns {
					continue
				}
				first[file], _ = t.read(path.Join(dir, name+".d", file))
				size += len(first[file])
				files = append(files, file)
			}
		}
	}
	slices.Sort(files)
	var texts []string
	for _, file := range files {
		texts = append(texts, first[file])
	}
	return texts
}

// parse adds what a unit file says. An empty value resets a setting, but not one of a dependency, which systemd does
// not take back either.
func (s Settings) parse(text string) {
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, isSetting := strings.Cut(line, "=")
		if !isSetting || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		key, value = section+"."+strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case value != "":
			s[key] = append(s[key], value)
		case section != "Unit":
			s[key] = nil
		}
	}
}

// Started returns the units that a boot of the root starts, by the links and the dependencies of its units. What a
// generator, a device or another unit starts on demand is not among them.
func (t Tree) Started() map[string]bool {
	started, seen := map[string]bool{}, map[string]bool{}
	queue := []string{"default.target", "multi-user.target"}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		s, ok := t.Unit(name)
		if !ok {
			continue
		}
		started[name] = true
		for _, key := range []string{"Unit.Wants", "Unit.Requires", "Unit.BindsTo", "Service.Sockets"} {
			queue = append(queue, s.words(key)...)
		}
		if name == "default.target" && slices.Contains(s.words("Unit.Requires"), "multi-user.target") {
			queue = append(queue, "graphical.target") // it is a link to that
		}
		for _, dir := range unitDirs {
			queue = append(queue, t.names(path.Join(dir, name+".wants"))...)
			queue = append(queue, t.names(path.Join(dir, name+".requires"))...)
		}
	}
	return started
}
