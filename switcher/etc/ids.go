package etc

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrNoFreeID is returned when a new name of the image finds no number left.
var ErrNoFreeID = errors.New("no free id left in its range")

// System ids that may be given to a name whose own number is taken on the
// host. Distributions give theirs from the same range, from the top.
const (
	firstSystem = 100
	lastSystem  = 999
)

// ledger remembers every number that was ever given on this host, and to whom.
// Files under /var outlive the users of one root; without it, a user of the
// third image could own what a user of the first one left.
type ledger struct {
	Schema string            `json:"schema"`
	Users  map[uint32]string `json:"users"`
	Groups map[uint32]string `json:"groups"`
}

const ledgerSchema = "updatectl.ids/v1"

// maxLedger bounds the file; it has some 20 bytes per name.
const maxLedger = 4 << 20

func parseLedger(content []byte) (ledger, error) {
	l := ledger{Users: map[uint32]string{}, Groups: map[uint32]string{}}
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

func (l ledger) clone() ledger {
	return ledger{Users: maps.Clone(l.Users), Groups: maps.Clone(l.Groups)}
}

func (l ledger) bytes() []byte {
	l.Schema = ledgerSchema
	b, _ := json.MarshalIndent(l, "", "  ") // maps of strings always marshal
	return append(b, '\n')
}

// record adds the numbers of a side that is or will be the host's.
func (l ledger) record(t tables) {
	for _, n := range t["passwd"].numbers() {
		l.Users[n.id] = n.name
	}
	for _, n := range t["group"].numbers() {
		l.Groups[n.id] = n.name
	}
}

// numbering is the outcome for one kind of name: which number each name has on
// this host from now on.
type numbering map[string]uint32

// assign decides the numbers: a name the host has keeps its own, a name the
// host once had gets it back, a new name gets the image's if nobody else ever
// had it here, else a free one. kind is "user" or "group"; wish is a number to
// try first for a name that has to move.
func assign(kind, file string, old, cur, next tables, known map[uint32]string, wish numbering, rep *Report) (numbering, error) {
	out := numbering{"root": 0}
	owner := maps.Clone(known)
	for _, n := range old[file].numbers() { // gone from the host, its files perhaps not
		if _, ok := owner[n.id]; !ok && !inTable(cur[file], n.name) {
			owner[n.id] = n.name
		}
	}
	for _, n := range cur[file].numbers() {
		if n.name == "root" && n.id != 0 {
			rep.note(fmt.Sprintf("%s: root had the number %d, it is 0 now", file, n.id))
			continue
		}
		out[n.name] = n.id
		owner[n.id] = n.name
	}
	owner[0] = "root"

	former := numbering{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(known))) {
		if owner[id] == known[id] {
			former[known[id]] = id // the lowest, should there be several
		}
	}
	image := numbering{}
	var homeless []numbered
	for _, n := range next[file].numbers() {
		image[n.name] = n.id
		if _, ok := out[n.name]; ok {
			continue
		}
		id, ok := former[n.name]
		if !ok {
			id = n.id
			// Two names of the image with one number are meant to share it.
			by, taken := owner[id]
			ok = !taken || by == n.name || (image[by] == id && out[by] == id && inTable(next[file], by))
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
	for _, n := range homeless {
		id, err := freeID(n, owner, wish)
		if err != nil {
			return nil, fmt.Errorf("cannot give %s %s a number: %w", kind, n.name, err)
		}
		out[n.name], owner[id] = id, n.name
	}

	for _, n := range next[file].numbers() {
		_, here := cur[file].get(n.name)
		_, before := old[file].get(n.name)
		switch {
		case out[n.name] == n.id:
		case here:
			rep.note(fmt.Sprintf("%s: %s %s is %d here and %d in the image; files of the image owned by it show %d", file, kind, n.name, out[n.name], n.id, n.id))
		case !before:
			rep.conflict(file, fmt.Sprintf("new %s %s is %d in the image, which another %s has or had here; it gets %d", kind, n.name, n.id, kind, out[n.name]))
		}
	}
	for _, n := range old[file].numbers() { // only to compare the old image's files
		if _, ok := out[n.name]; !ok {
			out[n.name] = n.id
		}
	}
	return out, nil
}

func inTable(t *table, key string) bool { _, ok := t.get(key); return ok }

// freeID finds a number nobody has: for people upwards from 1000, else in the
// system range from the top.
func freeID(n numbered, owner map[uint32]string, wish numbering) (uint32, error) {
	free := func(id uint32) bool { _, taken := owner[id]; return !taken }
	if human(n.id) {
		for id := uint32(firstHuman); id <= lastHuman; id++ {
			if free(id) {
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

// translate maps the numbers of one side to this host's, by name.
func (n numbering) translate(t *table) map[uint32]uint32 {
	m := map[uint32]uint32{}
	for _, e := range t.numbers() {
		if _, ok := m[e.id]; ok {
			continue // the first name of a number is the one that is shown
		}
		if id, ok := n[e.name]; ok {
			m[e.id] = id
		}
	}
	return m
}

func mapped(m map[uint32]uint32, id uint32) uint32 {
	if to, ok := m[id]; ok {
		return to
	}
	return id
}

// renumber gives the databases of one side this host's numbers.
func renumber(t tables, users, groups numbering) tables {
	out := tables{}
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

// setID changes a number, and leaves the line alone when it means the same.
func (t *table) setID(key string, field int, id uint32) {
	r, _ := t.get(key)
	if have, _ := parseID(r.fields[field]); have == id {
		return
	}
	fields := slices.Clone(r.fields)
	fields[field] = formatID(id)
	t.put(key, fields)
}
