package fstab

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

const unitsDir = "systemd/system"

// MoveUnits does for the host's own mount and swap units what [Sources.Move] does for its fstab. A unit that the
// host has by a link to elsewhere becomes an ordinary file: what the link leads to may not be in the new root. hostRoot
// is the tree of the host root, tree what is in its /etc, which is changed. It returns the new content of unit files,
// by path, and a note about each unit that changes.
func (h Sources) MoveUnits(hostRoot rootfs.Dir, tree listing.Tree, fstab []byte) (
	texts map[string][]byte, notes []string) {
	m := unitMover{Sources: h, tree: tree, texts: map[string][]byte{}}
	if h.Mount == "" {
		return m.texts, nil
	}
	units := m.mountUnits(hostRoot)
	own := h.ownMounts(fstab)
	for _, u := range units {
		what := u.last("What")
		if path.Ext(u.name) == ".mount" && (!isHostPath(what) || h.kept(what)) {
			own = append(own, path.Clean(u.last("Where")))
		}
	}
	for _, u := range units {
		notes = append(notes, m.moveUnit(u, own)...)
	}
	return m.texts, notes
}

// unitMover changes units.
type unitMover struct {
	Sources
	tree  listing.Tree
	texts map[string][]byte
}

// mountUnit is a mount or swap unit in /etc, with its drop-ins.
type mountUnit struct {
	name  string   // of the unit
	files []string // below /etc, in the order in which systemd reads them
	texts map[string]string
}

// mountUnits returns the mount and swap units in the /etc of the host.
func (m unitMover) mountUnits(hostRoot rootfs.Dir) []mountUnit {
	var units []mountUnit
	for name, e := range m.tree {
		ext := path.Ext(name)
		if path.Dir(name) != unitsDir || ext != ".mount" && ext != ".swap" && ext != ".automount" ||
			NeverCarried.Has(name) || e.Kind != listing.File && e.Kind != listing.Link || e.Target == "/dev/null" {
			continue
		}
		text, err := hostRoot.ReadFile(path.Join("/etc", name), rootfs.MaxConfig)
		if err != nil {
			continue // a link to nothing
		}
		if e.Kind == listing.Link {
			m.tree[name] = listing.Entry{Kind: listing.File, Mode: 0o644, Sum: listing.Sum(text), MTime: e.MTime}
			m.texts[name] = text
		}
		u := mountUnit{name: path.Base(name), files: []string{name}, texts: map[string]string{name: string(text)}}
		for dropin, e := range m.tree {
			if path.Dir(dropin) != name+".d" || path.Ext(dropin) != ".conf" || e.Kind != listing.File {
				continue
			}
			if text, err := hostRoot.ReadFile(path.Join("/etc", dropin), rootfs.MaxConfig); err == nil {
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
func (m unitMover) moveUnit(u mountUnit, own []string) []string {
	source := u.last("What")
	l := fstabLine{source: source, rawSource: source, point: u.last("Where"), fstype: u.last("Type"),
		options: u.last("Options")}
	if path.Ext(u.name) == ".swap" {
		if !m.onHostRoot(source, own) {
			return nil
		}
		m.leaveOutUnit(u)
		return []string{m.swapNote(u.name, source)}
	}
	for _, p := range l.layers() {
		if m.onHostRoot(p, own) {
			m.leaveOutUnit(u)
			return []string{fmt.Sprintf("%s: %s is not mounted: it needs %s on the host root, which is read-only for an image",
				u.name, l.point, path.Clean(p))}
		}
	}
	if l.layered() || !m.onHostRoot(source, own) {
		return nil
	}
	moved := path.Join(m.Mount, path.Clean(source)) // cleaned apart, no .. leads out of the host root
	for _, file := range u.files {
		if text := replaceSource(u.texts[file], source, moved); text != u.texts[file] {
			e := m.tree[file]
			e.Sum = listing.Sum([]byte(text))
			m.tree[file], m.texts[file] = e, []byte(text)
		}
	}
	return []string{fmt.Sprintf("%s: %s is mounted from %s, read-only: its source is on the host root",
		u.name, l.point, moved)}
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
func (m unitMover) leaveOutUnit(u mountUnit) {
	for name := range m.tree {
		dir := path.Dir(name)
		isLink := path.Base(name) == u.name && (path.Ext(dir) == ".wants" || path.Ext(dir) == ".requires")
		if isLink || slices.Contains(u.files, name) || name == u.files[0]+".d" {
			delete(m.tree, name)
		}
	}
}
