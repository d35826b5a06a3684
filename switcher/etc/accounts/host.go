package accounts

import (
	"fmt"
	"slices"
	"strings"
)

// HostBase returns invented databases of an old image for a host that runs none: the host's entries without those that
// stay, their group memberships, and root's login data. So these count as local, and what the image lacks of the others
// is left behind. Shells are those of the image.
func HostBase(cur, next Tables, access Access, shells []string) Tables {
	stay := access.stayers(cur, next)
	base := Tables{}
	for file, t := range cur {
		local := stay.local
		if formats[file].groups {
			local = stay.groups
		}
		base[file] = t.filter(func(r row) bool {
			return r.fields != nil && !local[r.name()] && !access.staysByNumber(r.name(), cur, local)
		}).without(formats[file], stay.users)
	}
	base.forget("passwd", next, 1, func(c string) bool { return c != "x" && passwordSet(c) })
	base.forget("shadow", next, 1, passwordSet)
	base.forget("passwd", next, 6, func(c string) bool { return slices.Contains(shells, c) })
	return base
}

// passwordSet reports whether somebody set a password: also an empty one, or one that was locked later. A new system
// has none.
func passwordSet(hash string) bool {
	return hash == "" || strings.Trim(hash, "!*") != ""
}

// forget makes a field of root count as a local change if set reports true for it: the invented base gets the image's
// value.
func (b Tables) forget(file string, next Tables, field int, set func(string) bool) {
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

// NoteShells reports the people whose login shell is not in the image.
func NoteShells(rep *Remarks, merged, image Tables, people People, shells []string) {
	if len(shells) == 0 {
		return
	}
	for _, n := range merged["passwd"].numbers() {
		r, _ := merged["passwd"].get(n.name)
		shell := r.fields[6]
		if x, ok := image["passwd"].get(n.name); ok && x.fields[6] == shell {
			continue
		}
		if (n.name == "root" || people.isUser(n.id)) && shell != "" && !noLogin(shell) && !slices.Contains(shells, shell) {
			rep.note(fmt.Sprintf("passwd: the shell %s of %s is not in the image's /etc/shells", shell, n.name))
		}
	}
}
