package accounts

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"
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
		if id, ok := parseID(fields[1]); ok && id > 0 {
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
	groups map[string]bool // groups whose entries stay as they are
}

// stayers returns who stays by what the account is for: somebody who logs in, has rights or has files in a home. Of a
// service that the image has, too, only the group memberships stay: the image knows best how it runs.
func (a Access) stayers(cur, next Tables) stayers {
	s := stayers{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	granted := slices.Concat(rightsGroups, a.Sudo.Groups)
	members := map[string]bool{}
	for _, r := range cur["group"].all() {
		if r.fields == nil {
			continue
		}
		id, _ := parseID(r.fields[2])
		named := slices.Contains(a.Sudo.Groups, r.name()) || slices.Contains(a.Sudo.Groups, "#"+r.fields[2])
		s.groups[r.name()] = named || a.People.isGroup(id)
		for _, m := range splitSet(r.fields[3]) {
			if !inTable(cur["passwd"], m) {
				s.users[m] = true // somebody from elsewhere, such as LDAP
			}
		}
		if !named && !slices.Contains(granted, r.name()) {
			continue
		}
		for _, m := range splitSet(r.fields[3]) {
			members[m] = true
		}
		members["#"+r.fields[2]] = true // by number: whose group it is
	}
	for _, r := range cur["passwd"].all() {
		if r.fields == nil || r.key == "root" {
			continue
		}
		logsIn := a.logsIn(r, cur["shadow"])
		if !logsIn && !a.used(r, members) {
			continue
		}
		s.users[r.name()], s.local[r.name()] = true, logsIn || !inTable(next["passwd"], r.name())
		if g, ok := cur["group"].named(r.fields[3]); ok && !inTable(next["group"], g) {
			s.groups[g] = true
		}
	}
	return s
}

// logsIn reports whether a user is a person, or can log in.
func (a Access) logsIn(r row, shadow *Table) bool {
	id, _ := parseID(r.fields[2])
	if a.People.isUser(id) || slices.Contains(a.Keys, r.name()) {
		return true
	}
	// A home below /home may be on a network file system, which is not mounted during the switch.
	return a.loginShell(r.fields[6]) &&
		(usablePassword(r, shadow) || strings.HasPrefix(path.Clean(r.fields[5]), "/home/"))
}

// used reports whether a user has rights, or owns a home or a spool. Members are the names with rights, and "#" with
// the numbers of the groups that give them.
func (a Access) used(r row, members map[string]bool) bool {
	id, _ := parseID(r.fields[2])
	switch {
	case slices.Contains(a.Homes, id), slices.Contains(a.Spools, r.name()), a.Sudo.names(r), members[r.name()]:
		return true
	}
	return members["#"+r.fields[3]] && a.loginShell(r.fields[6])
}

// staysByNumber reports whether a name is the number of somebody who stays, which subuid(5) allows in place of a name.
func (a Access) staysByNumber(name string, cur Tables, local map[string]bool) bool {
	id, ok := parseID(name)
	if !ok {
		return false
	}
	user, ok := cur["passwd"].named(name)
	return a.People.isUser(id) || ok && local[user]
}

// loginShell reports whether a shell starts a session; an empty field is /bin/sh.
func (a Access) loginShell(shell string) bool {
	return shell == "" || slices.Contains(a.Shells, shell) && !noLogin(shell)
}

// noLogin reports whether a shell only says no.
func noLogin(shell string) bool { return path.Base(shell) == "nologin" || path.Base(shell) == "false" }

// usablePassword reports whether somebody can log in with a password: also with none, where the field is empty.
func usablePassword(r row, shadow *Table) bool {
	hash := r.fields[1]
	if hash == "x" {
		s, ok := shadow.get(r.key)
		if !ok {
			return false
		}
		hash = s.fields[shadowPassword]
	}
	return !strings.HasPrefix(hash, "!") && !strings.HasPrefix(hash, "*")
}

// Sudo are the users and groups that sudoers names; "#" and a number stands for the one with that number.
type Sudo struct{ Users, Groups []string }

// names reports whether sudoers names a user.
func (s Sudo) names(r row) bool {
	return slices.Contains(s.Users, r.name()) || slices.Contains(s.Users, "#"+r.fields[2])
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
	_, ok := parseID(strings.TrimPrefix(first, "#"))
	return ok
}

// add adds the members of a list. Those that are excluded, and the netgroups, are left out.
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
func Logins(cur Tables) []Login {
	var all []Login
	for _, r := range cur["passwd"].all() {
		if r.fields != nil {
			all = append(all, Login{accountOf(r), r.fields[5]})
		}
	}
	return all
}
