package accounts

import (
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// HostBase returns invented databases of an old image for a host that runs none: the host's entries without those that
// stay, their group memberships, and root's login data. So these count as local, and what the image lacks of the others
// is left behind. Shells are those of the image.
func HostBase(cur, next table.Tables, access Access, shells []string) table.Tables {
	stay := access.stayers(cur, next)
	base := table.Tables{}
	for file, t := range cur {
		local := stay.local
		if table.Formats[file].Groups {
			local = stay.groups
		}
		base[file] = t.Filter(func(r table.Row) bool {
			return r.Fields != nil && !local[r.Name()] && !access.staysByNumber(r.Name(), cur, local)
		}).Without(table.Formats[file], stay.users)
	}
	forget(base, "passwd", next, 1, func(c string) bool { return c != "x" && passwordSet(c) })
	forget(base, "shadow", next, 1, passwordSet)
	forget(base, "passwd", next, 6, func(c string) bool { return slices.Contains(shells, c) })
	return base
}

// passwordSet reports whether somebody set a password: also an empty one, or one that was locked later. A new system
// has none.
func passwordSet(hash string) bool {
	return hash == "" || strings.Trim(hash, "!*") != ""
}

// forget makes a field of root count as a local change if set reports true for it: the invented base gets the image's
// value.
func forget(b table.Tables, file string, next table.Tables, field int, set func(string) bool) {
	t := b[file]
	r, ok := t.Get("root")
	if !ok || !set(r.Fields[field]) {
		return
	}
	fields := slices.Clone(r.Fields)
	fields[field] = "\x00unset" // no real field holds this
	if x, ok := next[file].Get("root"); ok {
		fields[field] = x.Fields[field]
	}
	t.Put("root", fields)
}

// NoteShells reports the people whose login shell is not in the image.
func NoteShells(rep *Remarks, merged, image table.Tables, people People, shells []string) {
	if len(shells) == 0 {
		return
	}
	for _, n := range merged["passwd"].Numbers() {
		r, _ := merged["passwd"].Get(n.Name)
		shell := r.Fields[6]
		if x, ok := image["passwd"].Get(n.Name); ok && x.Fields[6] == shell {
			continue
		}
		if (n.Name == "root" || people.isUser(n.ID)) && shell != "" && !noLogin(shell) && !slices.Contains(shells, shell) {
			rep.note(fmt.Sprintf("passwd: the shell %s of %s is not in the image's /etc/shells", shell, n.Name))
		}
	}
}
