package accounts

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// Access is what a host says, beside its user databases, about who uses it.
type Access struct {
	People People
	Shells []string // lines of /etc/shells
	Sudo   Sudo
	Keys   []string // users with authorized keys
	Homes  []uint32 // owners of the directories in /home
	Spools []string // users with a crontab, with mail or with services that run without a session
}

// People are the numbers of people, as in login.defs(5).
type People struct{ FirstUID, LastUID, FirstGID, LastGID uint32 }

// defaultPeople are the numbers of useradd(8) without a login.defs.
var defaultPeople = People{1000, 60000, 1000, 60000}

// ParseLoginDefs returns the numbers of people by a login.defs; nil is no such file.
func ParseLoginDefs(text []byte) People {
	p := defaultPeople
	to := map[string]*uint32{
		"UID_MIN": &p.FirstUID, "UID_MAX": &p.LastUID, "GID_MIN": &p.FirstGID, "GID_MAX": &p.LastGID,
	}
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || to[fields[0]] == nil {
			continue
		}
		if id, ok := table.ParseID(fields[1]); ok && id > 0 {
			*to[fields[0]] = id
		}
	}
	return p
}

// nobody has this number as user and as group, however far the range of people goes.
const nobody = 65534

func (p People) isUser(id uint32) bool { return id >= p.FirstUID && id <= p.LastUID && id != nobody }

func (p People) isGroup(id uint32) bool { return id >= p.FirstGID && id <= p.LastGID && id != nobody }

// rightsGroups are the groups whose members can do what root can, or read what root reads.
var rightsGroups = []string{
	"sudo", "wheel", "admin", "adm", "docker", "podman", "libvirt", "lxd", "incus", "incus-admin", "disk", "shadow",
	"systemd-journal",
}

// stayers are the names of a host that stay when it gets its first image.
type stayers struct {
	users  map[string]bool // whose group memberships stay
	local  map[string]bool // users whose entries stay as they are
	groups map[string]bool // Groups whose entries stay as they are
}

// stayers returns who stays by what the account is for: somebody who logs in, has rights or has files in a home. Of a
// service that the image has, too, only the group memberships stay: the image knows best how it runs.
func (a Access) stayers(cur, next table.Tables) stayers {
	s := stayers{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	granted := slices.Concat(rightsGroups, a.Sudo.Groups)
	members := map[string]bool{}
	for _, r := range cur["group"].Rows() {
		if r.Fields == nil {
			continue
		}
		id, _ := table.ParseID(r.Fields[2])
		named := slices.Contains(a.Sudo.Groups, r.Name()) || slices.Contains(a.Sudo.Groups, "#"+r.Fields[2])
		s.groups[r.Name()] = named || a.People.isGroup(id)
		for _, m := range table.SplitSet(r.Fields[3]) {
			if !cur["passwd"].Has(m) {
				s.users[m] = true // somebody from elsewhere, such as LDAP
			}
		}
		if !named && !slices.Contains(granted, r.Name()) {
			continue
		}
		for _, m := range table.SplitSet(r.Fields[3]) {
			members[m] = true
		}
		members["#"+r.Fields[2]] = true // by number: whose group it is
	}
	for _, r := range cur["passwd"].Rows() {
		if r.Fields == nil || r.Key == "root" {
			continue
		}
		logsIn := a.logsIn(r, cur["shadow"])
		if !logsIn && !a.used(r, members) {
			continue
		}
		s.users[r.Name()], s.local[r.Name()] = true, logsIn || !next["passwd"].Has(r.Name())
		if g, ok := cur["group"].Named(r.Fields[3]); ok && !next["group"].Has(g) {
			s.groups[g] = true
		}
	}
	return s
}

// logsIn reports whether a user is a person, or can log in.
func (a Access) logsIn(r table.Row, shadow *table.Table) bool {
	id, _ := table.ParseID(r.Fields[2])
	if a.People.isUser(id) || slices.Contains(a.Keys, r.Name()) {
		return true
	}
	// A home below /home may be on a network file system, which is not mounted during the switch.
	return a.loginShell(r.Fields[6]) &&
		(usablePassword(r, shadow) || strings.HasPrefix(path.Clean(r.Fields[5]), "/home/"))
}

// used reports whether a user has rights, or owns a home or a spool. Members are the names with rights, and "#" with
// the numbers of the groups that give them.
func (a Access) used(r table.Row, members map[string]bool) bool {
	id, _ := table.ParseID(r.Fields[2])
	switch {
	case slices.Contains(a.Homes, id), slices.Contains(a.Spools, r.Name()), a.Sudo.names(r), members[r.Name()]:
		return true
	}
	return members["#"+r.Fields[3]] && a.loginShell(r.Fields[6])
}

// staysByNumber reports whether a name is the number of somebody who stays, which subuid(5) allows in place of a name.
func (a Access) staysByNumber(name string, cur table.Tables, local map[string]bool) bool {
	id, ok := table.ParseID(name)
	if !ok {
		return false
	}
	user, ok := cur["passwd"].Named(name)
	return a.People.isUser(id) || ok && local[user]
}

// loginShell reports whether a shell starts a session; an empty field is /bin/sh.
func (a Access) loginShell(shell string) bool {
	return shell == "" || slices.Contains(a.Shells, shell) && !noLogin(shell)
}

// noLogin reports whether a shell only says no.
func noLogin(shell string) bool { return path.Base(shell) == "nologin" || path.Base(shell) == "false" }

// usablePassword reports whether somebody can log in with a password: also with none, where the field is empty.
func usablePassword(r table.Row, shadow *table.Table) bool {
	hash := r.Fields[1]
	if hash == "x" {
		s, ok := shadow.Get(r.Key)
		if !ok {
			return false
		}
		hash = s.Fields[table.ShadowPassword]
	}
	return !strings.HasPrefix(hash, "!") && !strings.HasPrefix(hash, "*")
}

// Sudo are the users and groups that sudoers names; "#" and a number stands for the one with that number.
type Sudo struct{ Users, Groups []string }

// names reports whether sudoers names a user.
func (s Sudo) names(r table.Row) bool {
	return slices.Contains(s.Users, r.Name()) || slices.Contains(s.Users, "#"+r.Fields[2])
}

// sudoComma is a comma in a list of sudoers, with the space around it.
var sudoComma = regexp.MustCompile(`\s*,\s*`)

// ParseSudoers returns whom the text of a sudoers(5) names: in rules, and in aliases, whether or not a rule uses them.
// What it cannot read it skips.
func ParseSudoers(text []byte) Sudo {
	var s Sudo
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	for line := range strings.Lines(joined) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		before, _, rule := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' && !sudoNumber(word) || line[0] == '@' || strings.HasPrefix(line, "Defaults"):
		case strings.HasPrefix(word, "User_Alias"):
			for alias := range strings.SplitSeq(rest, ":") {
				_, list, _ := strings.Cut(alias, "=")
				s.add(list)
			}
		case strings.HasSuffix(word, "_Alias"), !rule:
		default:
			before = sudoComma.ReplaceAllString(before, ",")
			if fields := strings.Fields(before); len(fields) > 0 {
				s.add(fields[0])
			}
		}
	}
	return s
}

// sudoNumber reports whether a word is a list that begins with the number of a user, and not a comment.
func sudoNumber(word string) bool {
	first, _, _ := strings.Cut(word, ",")
	_, ok := table.ParseID(strings.TrimPrefix(first, "#"))
	return ok
}

// Add adds the members of a list. Those that are excluded, and the netgroups, are left out.
func (s *Sudo) add(list string) {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.Trim(strings.TrimSpace(name), `"`)
		group, isGroup := strings.CutPrefix(name, "%")
		switch {
		case name == "" || strings.ContainsAny(name[:1], "!+") || strings.HasPrefix(group, ":"):
		case isGroup:
			s.Groups = append(s.Groups, group)
		default:
			s.Users = append(s.Users, name)
		}
	}
}

// Login is a user with what tells where the keys are that let somebody log in.
type Login struct {
	Account
	Home string
}

// Logins returns the users of a host.
func Logins(cur table.Tables) []Login {
	var all []Login
	for _, r := range cur["passwd"].Rows() {
		if r.Fields != nil {
			all = append(all, Login{accountOf(r), r.Fields[5]})
		}
	}
	return all
}
