package etc

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// DefaultAdopt lists what the first image root takes over from the host root: its identity, its network, who may log
// in, and what it needs to mount its disks and to fetch its next image. The configuration of services comes from the
// image. User databases are always merged by entry and need no line here.
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
	// The agent, and the credentials and certificates that it fetches with.
	"updatectl", "containers/auth.json", "containers/certs.d", "docker/certs.d",
	"systemd/system/updatectl*", "systemd/system/*.wants/updatectl*",
}

// ErrPattern is returned for an entry of [Inputs.Adopt] that is not a path or glob below /etc: a mistake in the
// configuration.
var ErrPattern = errors.New("not a path or glob below /etc")

// adoptList is a list of patterns that newAdoptList has checked.
type adoptList []string

// newAdoptList checks patterns, which may begin with /etc/. The error is an ErrPattern.
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

// has reports whether a path, or a directory above it, matches the list.
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

// hostBase returns an invented old image for a host root, which makes adopting the same three-way merge: what is left
// behind counts as the old image's (unchanged, so the new image replaces it), what is adopted counts as local.
func hostBase(cur, next snapshot, adopt adoptList) snapshot {
	base := snapshot{tree: listing{}, tables: hostTables(cur.tables, next.tables, next.shells)}
	for name, e := range cur.tree {
		if !adopt.has(name) {
			base.tree[name] = e
		}
	}
	return base
}

// The range of people's ids, as in login.defs(5) and systemd.
const (
	firstHuman = 1000
	lastHuman  = 59999
)

func isHuman(id uint32) bool { return id >= firstHuman && id <= lastHuman }

// hostTables returns the user databases for hostBase: the host's entries without its people, their group memberships,
// and root's login data.
func hostTables(cur, next tables, shells []string) tables {
	people := map[string]bool{}
	for _, n := range cur["passwd"].numbers() {
		if isHuman(n.id) {
			people[n.name] = true
		}
	}
	peopleGroups := map[string]bool{}
	for _, n := range cur["group"].numbers() {
		if isHuman(n.id) {
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

// humanNumber reports whether a name is the number of a person, which subuid(5) allows in place of a name.
func humanNumber(name string) bool {
	id, ok := parseID(name)
	return ok && isHuman(id)
}

// passwordSet reports whether somebody set a password: also an empty one, or one that was locked later. A new system
// has none.
func passwordSet(hash string) bool {
	return hash == "" || strings.Trim(hash, "!*") != ""
}

// forget makes a field of root count as a local change if set reports true for it: the invented base gets the image's
// value.
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
