package etc

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

const unitsDir = "systemd/system"

// moveUnits does for the host's own mount and swap units what [HostSources.Move] does for its fstab. A unit that the
// host has by a link to elsewhere becomes an ordinary file: what the link leads to may not be in the new root. hostRoot
// is the tree of the host root.
func (s *snapshot) moveUnits(hostRoot rootfs.Dir, h HostSources) {
	if h.Mount == "" {
		return
	}
	units := s.mountUnits(hostRoot)
	own := h.ownMounts(s.text["fstab"])
	for _, u := range units {
		what := u.last("What")
		if path.Ext(u.name) == ".mount" && (!isHostPath(what) || h.kept(what)) {
			own = append(own, path.Clean(u.last("Where")))
		}
	}
	for _, u := range units {
		s.notes = append(s.notes, s.moveUnit(u, h, own)...)
	}
}

// mountUnit is a mount or swap unit in /etc, with its drop-ins.
type mountUnit struct {
	name  string   // of the unit
	files []string // below /etc, in the order in which systemd reads them
	texts map[string]string
}

// mountUnits returns the mount and swap units in the /etc of the host.
func (s *snapshot) mountUnits(hostRoot rootfs.Dir) []mountUnit {
	var units []mountUnit
	for name, e := range s.tree {
		ext := path.Ext(name)
		if path.Dir(name) != unitsDir || ext != ".mount" && ext != ".swap" && ext != ".automount" ||
			neverAdopted.has(name) || e.kind != kindFile && e.kind != kindLink || e.target == "/dev/null" {
			continue
		}
		text, err := hostRoot.ReadFile(path.Join("/etc", name), maxConfig)
		if err != nil {
			continue // a link to nothing
		}
		if e.kind == kindLink {
			s.tree[name] = entry{kind: kindFile, mode: 0o644, sum: sumOf(text), mtime: e.mtime}
			s.units[name] = text
		}
		u := mountUnit{name: path.Base(name), files: []string{name}, texts: map[string]string{name: string(text)}}
		for dropin, e := range s.tree {
			if path.Dir(dropin) != name+".d" || path.Ext(dropin) != ".conf" || e.kind != kindFile {
				continue
			}
			if text, err := hostRoot.ReadFile(path.Join("/etc", dropin), maxConfig); err == nil {
				u.files, u.texts[dropin] = append(u.files, dropin), string(text)
			}
		}
		slices.Sort(u.files[1:])
		units = append(units, u)
	}
	slices.SortFunc(units, func(a, b mountUnit) int { return strings.Compare(a.name, b.name) })
	return units
}

// last returns the value of a setting that counts, "" for none.
func (u mountUnit) last(key string) string {
	value := ""
	for _, file := range u.files {
		for line := range strings.Lines(u.texts[file]) {
			if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == key {
				value = strings.TrimSpace(v)
			}
		}
	}
	return value
}

// moveUnit changes a unit whose source lies on the host root, or takes it out with the links that start it, and returns
// notes.
func (s *snapshot) moveUnit(u mountUnit, h HostSources, own []string) []string {
	source := u.last("What")
	l := fstabLine{source: source, rawSource: source, point: u.last("Where"), fstype: u.last("Type"),
		options: u.last("Options")}
	if path.Ext(u.name) == ".swap" {
		if !h.onHostRoot(source, own) {
			return nil
		}
		s.leaveOutUnit(u)
		return []string{fmt.Sprintf("%s: the swap file %s is not used: it lies on the host root, which is read-only for an "+
			"image; a swap file below %s stays", u.name, path.Clean(source), h.Kept[0])}
	}
	for _, p := range l.layers() {
		if h.onHostRoot(p, own) {
			s.leaveOutUnit(u)
			return []string{fmt.Sprintf("%s: %s is not mounted: it needs %s on the host root, which is read-only for an image",
				u.name, l.point, path.Clean(p))}
		}
	}
	if l.layered() || !h.onHostRoot(source, own) {
		return nil
	}
	for _, file := range u.files {
		if text := replaceSource(u.texts[file], source, path.Join(h.Mount, source)); text != u.texts[file] {
			e := s.tree[file]
			e.sum = sumOf([]byte(text))
			s.tree[file], s.units[file] = e, []byte(text)
		}
	}
	return []string{fmt.Sprintf("%s: %s is mounted from %s, read-only: its source is on the host root", u.name, l.point,
		path.Join(h.Mount, source))}
}

// replaceSource replaces the source in the lines of a unit file that name it.
func replaceSource(text, from, to string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == "What" && strings.TrimSpace(v) == from {
			line = "What=" + to + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}

// leaveOutUnit takes a unit out, with its drop-ins and the links that start it.
func (s *snapshot) leaveOutUnit(u mountUnit) {
	for name := range s.tree {
		dir := path.Dir(name)
		isLink := path.Base(name) == u.name && (path.Ext(dir) == ".wants" || path.Ext(dir) == ".requires")
		if isLink || slices.Contains(u.files, name) || name == u.files[0]+".d" {
			delete(s.tree, name)
		}
	}
}

// placeUnits gives the changed unit files of the host to the result.
func (out *outcome) placeUnits(cur snapshot) {
	for name, p := range out.paths {
		if text, changed := cur.units[name]; changed && p.side == current {
			p.content = text
			out.paths[name] = p
		}
	}
}
