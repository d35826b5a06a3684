package accounts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrNoFreeID is returned when there is no free number for a new name of the image.
var ErrNoFreeID = errors.New("no free id left in its range")

// The range of system ids for names whose number is taken on this host. Distributions assign theirs from the top of the
// same range.
const (
	firstSystem = 100
	lastSystem  = 999
)

// Ledger has the owner of every uid and gid ever assigned here. Files under /var outlive the users of one root: without
// the ledger, a user of the third image could own the files that a user of the first image left.
type Ledger struct {
	Schema string            `json:"schema"`
	Users  map[uint32]string `json:"users"`
	Groups map[uint32]string `json:"groups"`
}

const ledgerSchema = "updatectl.ids/v1"

// MaxLedger bounds the file in bytes; a name needs some 20.
const MaxLedger = 4 << 20

// ParseLedger reads a ledger; nil is an empty one. The error is one of the JSON.
func ParseLedger(content []byte) (Ledger, error) {
	l := Ledger{Users: map[uint32]string{}, Groups: map[uint32]string{}}
	if content == nil {
		return l, nil
	}
	err := json.Unmarshal(content, &l)
	if l.Users == nil {
		l.Users = map[uint32]string{}
	}
	if l.Groups == nil {
		l.Groups = map[uint32]string{}
	}
	return l, err
}

// Clone returns a copy.
func (l Ledger) Clone() Ledger {
	return Ledger{Users: maps.Clone(l.Users), Groups: maps.Clone(l.Groups)}
}

// Bytes returns the content of the file.
func (l Ledger) Bytes() []byte {
	l.Schema = ledgerSchema
	b, _ := json.MarshalIndent(l, "", "  ") // cannot fail for maps of strings
	return append(b, '\n')
}

// Record adds the numbers that the host has, or is about to have.
func (l Ledger) Record(t Tables) {
	for _, n := range t["passwd"].numbers() {
		l.Users[n.id] = n.name
	}
	for _, n := range t["group"].numbers() {
		l.Groups[n.id] = n.name
	}
}

// numbering is the number that each user, or each group, has on this host from now on.
type numbering map[string]uint32

// nameSpace is one kind of number: the users with passwd, or the groups with group.
type nameSpace struct {
	kind, file     string // "user" or "group"; the database
	old, cur, next *Table
	people         func(uint32) bool
	first, last    uint32            // the numbers of people
	assigned       map[uint32]string // owner of every number ever assigned here
}

// users returns the users on all three sides.
func (s Sides) users(l Ledger) nameSpace {
	return nameSpace{
		kind: "user", file: "passwd", old: s.Old["passwd"], cur: s.Current["passwd"], next: s.Next["passwd"],
		people: s.People.isUser, first: s.People.FirstUID, last: s.People.LastUID, assigned: l.Users,
	}
}

// groups returns the groups on all three sides.
func (s Sides) groups(l Ledger) nameSpace {
	return nameSpace{
		kind: "group", file: "group", old: s.Old["group"], cur: s.Current["group"], next: s.Next["group"],
		people: s.People.isGroup, first: s.People.FirstGID, last: s.People.LastGID, assigned: l.Groups,
	}
}

// assign decides the numbers. A name that the host has keeps its own, a name that the host once had gets it back, and a
// new name gets the image's number if no other name ever had it here, otherwise a free one: wish[name] where that is
// free. The error is an ErrNoFreeID.
func (s nameSpace) assign(wish numbering, rep *Remarks) (numbering, error) {
	out, owner := s.ofHost(rep)
	for _, n := range s.ofImage(out, owner) {
		id, err := s.freeID(n, owner, wish)
		if err != nil {
			return nil, fmt.Errorf("cannot give %s %s a number: %w", s.kind, n.name, err)
		}
		out[n.name], owner[id] = id, n.name
	}
	s.noteMoved(out, rep)
	for _, n := range s.old.numbers() { // only to compare the old image's files
		if _, ok := out[n.name]; !ok {
			out[n.name] = n.id
		}
	}
	return out, nil
}

// ofHost returns the numbers of the names that the host has, and the owner of every number that it has or ever had.
func (s nameSpace) ofHost(rep *Remarks) (out numbering, owner map[uint32]string) {
	out, owner = numbering{"root": 0}, maps.Clone(s.assigned)
	for _, n := range s.old.numbers() { // the name is gone from the host, its files may not be
		if _, ok := owner[n.id]; !ok && !inTable(s.cur, n.name) {
			owner[n.id] = n.name
		}
	}
	for _, n := range s.cur.numbers() {
		if n.name == "root" && n.id != 0 {
			rep.note(fmt.Sprintf("%s: root had the number %d, it is 0 now", s.file, n.id))
			continue
		}
		out[n.name] = n.id
		owner[n.id] = n.name
	}
	owner[0] = "root"
	return out, owner
}

// ofImage adds the names that only the image has, where their former number or the image's is free. It returns the
// others.
func (s nameSpace) ofImage(out numbering, owner map[uint32]string) (homeless []numbered) {
	former := numbering{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(s.assigned))) {
		if owner[id] == s.assigned[id] {
			former[s.assigned[id]] = id // the lowest, should there be several
		}
	}
	image := numbering{}
	for _, n := range s.next.numbers() {
		image[n.name] = n.id
		if _, ok := out[n.name]; ok {
			continue
		}
		id, ok := former[n.name]
		if !ok {
			id = n.id
			// Two names of the image with one number are meant to share it.
			by, taken := owner[id]
			ok = !taken || by == n.name || (image[by] == id && out[by] == id && inTable(s.next, by))
		}
		if !ok {
			homeless = append(homeless, n)
			continue
		}
		out[n.name] = id
		if _, taken := owner[id]; !taken {
			owner[id] = n.name
		}
	}
	return homeless
}

// noteMoved reports the names of the image that have another number on this host.
func (s nameSpace) noteMoved(out numbering, rep *Remarks) {
	for _, n := range s.next.numbers() {
		_, here := s.cur.get(n.name)
		_, before := s.old.get(n.name)
		switch {
		case out[n.name] == n.id:
		case here:
			rep.note(fmt.Sprintf("%s: %s %s is %d here and %d in the image; files of the image show %d",
				s.file, s.kind, n.name, out[n.name], n.id, out[n.name]))
		case !before:
			rep.conflict(s.file, fmt.Sprintf("new %s %s is %d in the image, which another %s has or had here; it gets %d",
				s.kind, n.name, n.id, s.kind, out[n.name]))
		}
	}
}

func inTable(t *Table, key string) bool { _, ok := t.get(key); return ok }

// freeID returns a number without an owner: for people the first of theirs, for others wish if that is free, then from
// the top of the system range. The error is ErrNoFreeID.
func (s nameSpace) freeID(n numbered, owner map[uint32]string, wish numbering) (uint32, error) {
	free := func(id uint32) bool { _, taken := owner[id]; return !taken }
	if s.people(n.id) {
		for id := s.first; id <= s.last; id++ {
			if free(id) && s.people(id) {
				return id, nil
			}
		}
		return 0, ErrNoFreeID
	}
	if id, ok := wish[n.name]; ok && id >= firstSystem && id <= lastSystem && free(id) {
		return id, nil
	}
	for id := uint32(lastSystem); id >= firstSystem; id-- {
		if free(id) {
			return id, nil
		}
	}
	return 0, ErrNoFreeID
}

// translate returns the map from the numbers in a table to this host's, by name.
func (n numbering) translate(t *Table) map[uint32]uint32 {
	m := map[uint32]uint32{}
	for _, e := range t.numbers() {
		if _, ok := m[e.id]; ok {
			continue // of several names with one number, the first counts
		}
		if id, ok := n[e.name]; ok {
			m[e.id] = id
		}
	}
	return m
}

// IDs maps the numbers of one side to this host's. What is not in it stays as it is.
type IDs struct{ UIDs, GIDs map[uint32]uint32 }

// Map returns the numbers of an owner on this host.
func (i IDs) Map(uid, gid uint32) (uint32, uint32) { return mapped(i.UIDs, uid), mapped(i.GIDs, gid) }

// idsOf returns the map for one side.
func idsOf(t Tables, users, groups numbering) IDs {
	return IDs{users.translate(t["passwd"]), groups.translate(t["group"])}
}

// Sides are what a merge starts from.
type Sides struct {
	Old, Current, Next Tables // the old image's, the host's and the new image's
	Adopting           bool   // the host had no image before: Old is invented ([HostBase])
	People             People
}

// Renumbered are three sides in this host's numbers. The host's own side keeps the numbers that it has.
type Renumbered struct {
	Sides
	OldIDs, NextIDs IDs // for the owners of files
}

// Renumber decides the numbers that all names have on this host from now on. The error is an ErrNoFreeID.
func (s Sides) Renumber(numbers Ledger, rep *Remarks) (Renumbered, error) {
	groups, err := s.groups(numbers).assign(nil, rep)
	if err != nil {
		return Renumbered{}, err
	}
	users, err := s.users(numbers).assign(groups, rep)
	if err != nil {
		return Renumbered{}, err
	}
	r := Renumbered{s, idsOf(s.Old, users, groups), idsOf(s.Next, users, groups)}
	r.Old, r.Current = renumber(s.Old, users, groups), renumber(s.Current, users, groups)
	r.Next = renumber(s.Next, users, groups)
	return r, nil
}

// Translate maps the uids and gids in the databases of an image to those of the same names in the host's. Names that
// the host does not have are left out.
func Translate(image, host Tables) IDs {
	names := func(t *Table) numbering {
		n := numbering{}
		for _, e := range t.numbers() {
			n[e.name] = e.id
		}
		return n
	}
	return idsOf(image, names(host["passwd"]), names(host["group"]))
}

func mapped(m map[uint32]uint32, id uint32) uint32 {
	if to, ok := m[id]; ok {
		return to
	}
	return id
}

// renumber returns the user databases of one side with this host's numbers.
func renumber(t Tables, users, groups numbering) Tables {
	out := Tables{}
	for file, table := range t {
		out[file] = table.clone()
	}
	gids := groups.translate(t["group"])
	for _, n := range t["passwd"].numbers() {
		r, _ := t["passwd"].get(n.name)
		gid, _ := parseID(r.fields[3])
		out["passwd"].setID(n.name, 2, users[n.name])
		out["passwd"].setID(n.name, 3, mapped(gids, gid))
	}
	for _, n := range t["group"].numbers() {
		out["group"].setID(n.name, 2, groups[n.name])
	}
	return out
}

// setID sets a number. A line that has it already is unchanged, however it is written.
func (t *Table) setID(key string, field int, id uint32) {
	r, _ := t.get(key)
	if have, _ := parseID(r.fields[field]); have == id {
		return
	}
	fields := slices.Clone(r.fields)
	fields[field] = formatID(id)
	t.put(key, fields)
}
