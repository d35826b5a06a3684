package etc

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// DefaultAdopt is what the first image root takes over from the mutable host:
// who the host is, how it is reached, who may work on it, and what it needs to
// mount its disks and to fetch its next image. Service configuration is left
// to the image. User databases are always merged by entry and need no line.
var DefaultAdopt = []string{
	// Identity.
	"machine-id", "hostid", "hostname", "hosts",
	"ssh/ssh_host_*", "ssh/sshd_config.d/*",
	"iscsi/initiatorname.iscsi", "nvme/hostid", "nvme/hostnqn",
	// Network.
	"network", "netplan", "systemd/network", "NetworkManager/system-connections",
	"wpa_supplicant", "resolv.conf",
	// Locale, time zone, keyboard, hardware clock.
	"localtime", "timezone", "adjtime", "locale.conf", "locale.gen", "default/locale",
	"vconsole.conf", "default/keyboard",
	// People's rights.
	"sudoers.d",
	// Disks: without these the lines of fstab find nothing to mount.
	"fstab", "crypttab", "cryptsetup-keys.d", "mdadm",
	// The agent itself, and the credentials and authorities it pulls with.
	"updatectl", "containers/auth.json", "containers/certs.d", "docker/certs.d",
	"systemd/system/updatectl*", "systemd/system/*.wants/updatectl*",
}

// ErrPattern is returned for an adopt entry that is not a path or glob below
// /etc. It is a mistake in the configuration.
var ErrPattern = errors.New("not a path or glob below /etc")

// adoptList is a checked list of patterns.
type adoptList []string

// newAdoptList checks patterns and accepts them with /etc/ in front as well.
func newAdoptList(patterns []string) (adoptList, error) {
	var list adoptList
	for _, p := range patterns {
		rel := strings.TrimPrefix(p, "/etc/")
		_, err := path.Match(rel, "")
		if err != nil || rel == "" || strings.HasPrefix(rel, "/") || slices.Contains(strings.Split(rel, "/"), "..") {
			return nil, fmt.Errorf("cannot adopt %q: %w", p, ErrPattern)
		}
		list = append(list, path.Clean(rel))
	}
	return list, nil
}

// has says whether a path, or a directory above it, is on the list.
func (l adoptList) has(name string) bool {
	for ; name != "."; name = path.Dir(name) {
		for _, pattern := range l {
			if ok, _ := path.Match(pattern, name); ok { // checked by newAdoptList
				return true
			}
		}
	}
	return false
}

// hostBase invents the old image a mutable host never had, so that adopting is
// the same three-way merge: what is to be left behind counts as the old
// image's (unchanged, hence replaced), what is to be adopted counts as local.
func hostBase(cur, next snapshot, adopt adoptList) snapshot {
	base := snapshot{tree: listing{}, tables: hostTables(cur.tables, next.tables, next.shells)}
	for name, e := range cur.tree {
		if !adopt.has(name) {
			base.tree[name] = e
		}
	}
	return base
}

// People's ids, as login.defs and systemd have them.
const (
	firstHuman = 1000
	lastHuman  = 59999
)

func human(id uint32) bool { return id >= firstHuman && id <= lastHuman }

// hostTables is the databases' half of hostBase: the host's entries without
// its people, without their memberships, and without what makes root's own
// login work.
func hostTables(cur, next tables, shells []string) tables {
	people := map[string]bool{}
	for _, n := range cur["passwd"].numbers() {
		if human(n.id) {
			people[n.name] = true
		}
	}
	peopleGroups := map[string]bool{}
	for _, n := range cur["group"].numbers() {
		if human(n.id) {
			peopleGroups[n.name] = true
		}
	}
	base := tables{}
	for file, t := range cur {
		local := people
		if formats[file].groups {
			local = peopleGroups
		}
		base[file] = t.filter(func(r row) bool {
			return r.fields != nil && !local[r.name()] && !humanNumber(r.name())
		}).without(formats[file], people)
	}
	base.forget("passwd", next, 1, func(c string) bool { return c != "x" && passwordSet(c) })
	base.forget("shadow", next, 1, passwordSet)
	base.forget("passwd", next, 6, func(c string) bool { return slices.Contains(shells, c) })
	return base
}

// humanNumber recognises the numeric form subuid(5) allows in place of a name.
func humanNumber(name string) bool {
	id, ok := parseID(name)
	return ok && human(id)
}

// passwordSet tells a password somebody chose (or chose to have none, or
// locked later) from the "nobody ever set one" of a fresh system.
func passwordSet(hash string) bool {
	return hash == "" || strings.Trim(hash, "!*") != ""
}

// forget makes a field of root count as changed on the host, by giving the
// invented base the image's value.
func (b tables) forget(file string, next tables, field int, set func(string) bool) {
	t := b[file]
	r, ok := t.get("root")
	if !ok || !set(r.fields[field]) {
		return
	}
	fields := slices.Clone(r.fields)
	fields[field] = "\x00unset" // no real field holds this
	if x, ok := next[file].get("root"); ok {
		fields[field] = x.fields[field]
	}
	t.put("root", fields)
}
