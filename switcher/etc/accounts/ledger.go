package accounts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
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

// MaxLedger bounds the file in bytes. A name takes less than twice its line in passwd or group, which table.Max bounds.
const MaxLedger = 4 * table.Max

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
func (l Ledger) Record(t table.Tables) {
	for _, n := range t["passwd"].Numbers() {
		l.Users[n.ID] = n.Name
	}
	for _, n := range t["group"].Numbers() {
		l.Groups[n.ID] = n.Name
	}
}

// nameSpace is one kind of number: the users with passwd, or the groups with group.
type nameSpace struct {
	kind, file     string // "user" or "group"; the database
	old, cur, next *table.Table
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
func (s nameSpace) assign(wish numbers.ByName, rep *Remarks) (numbers.ByName, error) {
	out, owner := s.ofHost(rep)
	for _, n := range s.ofImage(out, owner) {
		id, err := s.freeID(n, owner, wish)
		if err != nil {
			return nil, fmt.Errorf("cannot give %s %s a number: %w", s.kind, n.Name, err)
		}
		out[n.Name], owner[id] = id, n.Name
	}
	s.noteMoved(out, rep)
	for _, n := range s.old.Numbers() { // only to compare the old image's files
		if _, ok := out[n.Name]; !ok {
			out[n.Name] = n.ID
		}
	}
	return out, nil
}

// ofHost returns the numbers of the names that the host has, and the owner of every number that it has or ever had.
func (s nameSpace) ofHost(rep *Remarks) (out numbers.ByName, owner map[uint32]string) {
	out, owner = numbers.ByName{"root": 0}, maps.Clone(s.assigned)
	for _, n := range s.old.Numbers() { // the name is gone from the host, its files may not be
		if _, ok := owner[n.ID]; !ok && !s.cur.Has(n.Name) {
			owner[n.ID] = n.Name
		}
	}
	for _, n := range s.cur.Numbers() {
		if n.Name == "root" && n.ID != 0 {
			rep.note(fmt.Sprintf("%s: root had the number %d, it is 0 now", s.file, n.ID))
			continue
		}
		out[n.Name] = n.ID
		owner[n.ID] = n.Name
	}
	owner[0] = "root"
	return out, owner
}

// ofImage adds the names that only the image has, where their former number or the image's is free. It returns the
// others.
func (s nameSpace) ofImage(out numbers.ByName, owner map[uint32]string) (homeless []table.Numbered) {
	former := numbers.ByName{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(s.assigned))) {
		if owner[id] == s.assigned[id] {
			former[s.assigned[id]] = id // the lowest, should there be several
		}
	}
	image := numbers.ByName{}
	for _, n := range s.next.Numbers() {
		image[n.Name] = n.ID
		if _, ok := out[n.Name]; ok {
			continue
		}
		id, ok := former[n.Name]
		if !ok {
			id = n.ID
			// Two names of the image with one number are meant to share it.
			by, taken := owner[id]
			ok = !taken || by == n.Name || (image[by] == id && out[by] == id && s.next.Has(by))
		}
		if !ok {
			homeless = append(homeless, n)
			continue
		}
		out[n.Name] = id
		if _, taken := owner[id]; !taken {
			owner[id] = n.Name
		}
	}
	return homeless
}

// noteMoved reports the names of the image that have another number on this host.
func (s nameSpace) noteMoved(out numbers.ByName, rep *Remarks) {
	for _, n := range s.next.Numbers() {
		_, here := s.cur.Get(n.Name)
		_, before := s.old.Get(n.Name)
		switch {
		case out[n.Name] == n.ID:
		case here:
			rep.Renumbered = append(rep.Renumbered, fmt.Sprintf(
				"%s %s is %d here and %d in the image; files of the image show %d",
				s.kind, n.Name, out[n.Name], n.ID, out[n.Name]))
		case !before:
			rep.conflict(s.file, fmt.Sprintf("new %s %s is %d in the image, which another %s has or had here; it gets %d",
				s.kind, n.Name, n.ID, s.kind, out[n.Name]))
		}
	}
}

// freeID returns a number without an owner: for people the first of theirs, for others wish if that is free, then from
// the top of the system range. The error is ErrNoFreeID.
func (s nameSpace) freeID(n table.Numbered, owner map[uint32]string, wish numbers.ByName) (uint32, error) {
	free := func(id uint32) bool { _, taken := owner[id]; return !taken }
	if s.people(n.ID) {
		for id := s.first; id <= s.last; id++ {
			if free(id) && s.people(id) {
				return id, nil
			}
		}
		return 0, ErrNoFreeID
	}
	if id, ok := wish[n.Name]; ok && id >= firstSystem && id <= lastSystem && free(id) {
		return id, nil
	}
	for id := uint32(lastSystem); id >= firstSystem; id-- {
		if free(id) {
			return id, nil
		}
	}
	return 0, ErrNoFreeID
}

// Sides are what a merge starts from.
type Sides struct {
	Old, Current, Next table.Tables // the old image's, the host's and the new image's
	Adopting           bool         // the host had no image before: Old is invented ([HostBase])
	People             People
}

// Renumbered are three sides in this host's numbers. The host's own side keeps the numbers that it has.
type Renumbered struct {
	Sides
	OldIDs, NextIDs numbers.IDs // for the owners of files
}

// Renumber decides the numbers that all names have on this host from now on. The error is an ErrNoFreeID.
func (s Sides) Renumber(ledger Ledger, rep *Remarks) (Renumbered, error) {
	groups, err := s.groups(ledger).assign(nil, rep)
	if err != nil {
		return Renumbered{}, err
	}
	users, err := s.users(ledger).assign(groups, rep)
	if err != nil {
		return Renumbered{}, err
	}
	r := Renumbered{s, numbers.Of(s.Old, users, groups), numbers.Of(s.Next, users, groups)}
	r.Old, r.Current = renumber(s.Old, users, groups), renumber(s.Current, users, groups)
	r.Next = renumber(s.Next, users, groups)
	return r, nil
}

// renumber returns the user databases of one side with this host's numbers.
func renumber(t table.Tables, users, groups numbers.ByName) table.Tables {
	out := table.Tables{}
	for file, side := range t {
		out[file] = side.Clone()
	}
	ids := numbers.Of(t, users, groups)
	for _, n := range t["passwd"].Numbers() {
		r, _ := t["passwd"].Get(n.Name)
		gid, _ := table.ParseID(r.Fields[3])
		_, gid = ids.Map(0, gid)
		setID(out["passwd"], n.Name, 2, users[n.Name])
		setID(out["passwd"], n.Name, 3, gid)
	}
	for _, n := range t["group"].Numbers() {
		setID(out["group"], n.Name, 2, groups[n.Name])
	}
	return out
}

// setID sets a number. A line that has it already is unchanged, however it is written.
func setID(t *table.Table, key string, field int, id uint32) {
	r, _ := t.Get(key)
	if have, _ := table.ParseID(r.Fields[field]); have == id {
		return
	}
	fields := slices.Clone(r.Fields)
	fields[field] = table.FormatID(id)
	t.Put(key, fields)
}
